"""What the description in a TIFF file says of the number of images: ImageJ's, tifffile's and OME's.

ImageJ writes stacks of more than 4 GB with one directory, and all images one after the other behind it; tifffile can do so too. Programs that go by
directories read one image of such a file.
"""

from __future__ import annotations

import json
import math
import re

_IMAGEJ = re.compile(rb"^images=(\d{1,9})\s*$", re.MULTILINE)
_PIXELS = re.compile(rb"<(?:\w+:)?Pixels\b[^>]*>")
_SIZE = re.compile(rb"\bSize[ZCT]\s*=\s*[\"'](\d{1,9})[\"']")


def described_images(text: bytes, shape: tuple[int, int]) -> int:
    """Return the number of images that a description speaks of; 0 when it does not say.

    Parameters
    ----------
    text : the description of a file's first directory
    shape : (height, width) of its images
    """
    text = text.rstrip(b"\0").strip()
    if text.startswith(b"ImageJ="):
        found = _IMAGEJ.search(text)
        return int(found[1]) if found else 0
    if text.startswith(b"{"):
        return _of_shape(text, shape)
    if b"<OME" in text[:1000]:
        return _of_ome(text)
    return 0


def _of_shape(text: bytes, shape: tuple[int, int]) -> int:
    try:
        sides = json.loads(text).get("shape")
    except (ValueError, AttributeError, RecursionError):
        return 0
    if not isinstance(sides, list) or not all(isinstance(side, int) and 0 < side < 1 << 31 for side in sides):
        return 0
    return math.prod(sides[:-2]) if tuple(sides[-2:]) == shape and len(sides) < 10 else 0


def _of_ome(text: bytes) -> int:
    pixels = _PIXELS.findall(text)
    if len(pixels) != 1 or b"FileName" in text:  # several images, or in several files
        return 0
    sizes = [int(size) for size in _SIZE.findall(pixels[0])]
    return math.prod(sizes) if len(sizes) == 3 else 0
