"""Writing the outputs of an item: each appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from beamside.formats.atomic import atomic_path
from beamside.imaging.pictures import encode


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture as its file name says, .png or .jpg."""
    content = encode(picture, "png" if path.suffix == ".png" else "jpeg")
    with atomic_path(path, durable=False) as temporary:
        temporary.write_bytes(content)
