"""A camera disk as facilities have them: a hundred good movies as many programs write them, and among them a bad or foreign file of each kind.

Every file has a fate that is known beforehand: it becomes a micrograph, or it is not used, and then a reason has to be told.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from beamside.simulate.gain import GainReference, gain_reference
from beamside.simulate.movie import MovieSettings, simulate_movie
from beamside.simulate.specimen import make_specimen

Counts = npt.NDArray[np.uint8]

SIZE = (512, 512)
FRAMES = 10
SETTINGS = MovieSettings(
    size=SIZE, frames=FRAMES, drift=0.0, local_motion=0.0, jitter=0.0, dose_per_frame=2.0, particle_spacing=200
)
"""Nothing moves, so that the corrected micrograph is the gain-corrected sum of the frames, whatever program wrote them."""

IMOD_STAMP = 1146047817
LATIN_1 = b"caf\xe9_0001_Fractions.tiff"


@dataclass
class OddFolders:
    """What was written: `good` has for each path of a usable movie the sum that it must give; `bad` has paths that must not
    be used, and `copies` second paths of good movies, with the first."""

    root: Path
    gain: GainReference
    gain_file: Path
    good: dict[bytes, npt.NDArray[np.float64]] = field(default_factory=dict)
    bad: dict[bytes, str] = field(default_factory=dict)
    copies: dict[bytes, bytes] = field(default_factory=dict)
    growing: list[tuple[Path, Counts]] = field(default_factory=list)
    seed: int = 0

    def next_counts(self, most: int = 255) -> Counts:
        """Return the counts of another movie; none is above `most`, which a narrow format can hold."""
        self.seed += 1
        movie = simulate_movie(SETTINGS, make_specimen("barrel"), 9000 + self.seed, self.gain)
        return np.minimum(movie.counts, most).astype(np.uint8)

    def add(self, path: Path | bytes, counts: Counts) -> None:
        """Note that the file at `path` is a movie of these counts."""
        self.good[os.fsencode(path)] = counts.sum(axis=0, dtype=np.float64) * self.gain.gain

    def refuse(self, path: Path | bytes, why: str) -> None:
        """Note that the file at `path` must not become a micrograph."""
        self.bad[os.fsencode(path)] = why


def write_odd_folders(root: Path) -> OddFolders:
    """Write all that does not change afterwards below ``root/camera``, and the gain reference beside it."""
    gain = gain_reference(SIZE, 1)
    gain_file = root / "references" / "gain.mrc"
    write_mrc(gain_file, gain.gain[None], 2)
    odd = OddFolders(root / "camera", gain, gain_file)
    for write in (
        _epu,
        _serialem,
        _imod,
        _big_endian,
        _compressed,
        _names,
        _plain,
        _system_folders,
        _damaged,
        _no_movies,
        _another_camera,
        _links,
    ):
        write(odd)
    _renamed_copy(odd)
    return odd


def grow(odd: OddFolders, seconds: float) -> threading.Thread:
    """Write two movies frame by frame, with pauses that look like the end, as over a slow network; returns the thread that does it."""
    for name in ("slow_1.tiff", "slow_2.mrc"):
        counts = odd.next_counts()
        odd.growing.append((odd.root / "growing" / name, counts))
        odd.add(odd.root / "growing" / name, counts)
    (odd.root / "growing").mkdir(exist_ok=True)

    def write() -> None:
        for number in range(FRAMES):
            for path, counts in odd.growing:
                if path.suffix == ".tiff":
                    with tifffile.TiffWriter(path, append=number > 0) as writer:
                        writer.write(counts[number][::-1], photometric="minisblack", compression="lzw", metadata=None)
                else:
                    write_mrc(path, counts[: number + 1], 6, dtype="<u2")
            time.sleep(seconds / FRAMES)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


# -- dialects ---------------------------------------------------------------------------------------------------------


def _epu(odd: OddFolders) -> None:
    for square in (101, 102):
        folder = odd.root / "epu" / "Images-Disc1" / f"GridSquare_{square}" / "Data"
        for index in range(6):
            stem = f"FoilHole_{square}{index:02d}_Data_7{index}_8{index}_20260112_0900{index:02d}"
            counts = odd.next_counts()
            write_tiff(folder / f"{stem}_Fractions.tiff", counts)
            odd.add(folder / f"{stem}_Fractions.tiff", counts)
            write_epu_xml(folder / f"{stem}.xml", SETTINGS.dose_per_frame * FRAMES * (1 + 0.004 * index))
            write_mrc(folder / f"{stem}.mrc", counts.sum(axis=0, dtype=np.uint16)[None], 6)
            odd.refuse(folder / f"{stem}.mrc", "EPU's sum beside the movie")
        picture = folder.parent / f"GridSquare_20260112_0850{square % 100:02d}.mrc"
        write_mrc(picture, odd.next_counts()[:1].astype(np.int16), 1)
        odd.refuse(picture, "grid square image")
    atlas = odd.root / "epu" / "Atlas" / "Atlas_1.mrc"
    write_mrc(atlas, odd.next_counts()[:1].astype(np.int16), 1)
    odd.refuse(atlas, "atlas")


def _serialem(odd: OddFolders) -> None:
    folder = odd.root / "serialem"
    for index in range(10):
        path = folder / f"position_{index:03d}.tif"
        counts = odd.next_counts()
        write_tiff(path, counts)
        odd.add(path, counts)
        write_mdoc(path, FRAMES)
    write_mrc(folder / "CountRef_position_000.mrc", odd.gain.gain[None], 2)
    odd.refuse(folder / "CountRef_position_000.mrc", "the gain reference under another name")
    (folder / "defects_position_000.txt").write_text("CameraSizeX 512\nCameraSizeY 512\nBadPixels 3 4\n")
    (folder / "grid.nav").write_text("AdocVersion = 2.00\n")


def _imod(odd: OddFolders) -> None:
    folder = odd.root / "imod"
    for index in range(8):
        path = folder / f"area_{index}.mrc"
        counts = odd.next_counts(most=127)
        signed = index % 2 == 0
        write_mrc(path, counts, 0, imod=1 if signed else None, dtype="i1" if signed else "u1")
        odd.add(path, counts)


def _big_endian(odd: OddFolders) -> None:
    folder = odd.root / "big-endian"
    for index in range(4):
        counts = odd.next_counts()
        write_mrc(folder / f"mrc_{index}.mrcs", counts, 1, order=">", dtype=">i2")
        odd.add(folder / f"mrc_{index}.mrcs", counts)
        counts = odd.next_counts()
        write_tiff(folder / f"tiff_{index}.tif", counts.astype(">u2"), byteorder=">")
        odd.add(folder / f"tiff_{index}.tif", counts)


def _compressed(odd: OddFolders) -> None:
    folder = odd.root / "compressed"
    for index in range(4):
        counts = odd.next_counts(most=15)
        write_mrc(folder / f"packed_{index}.mrc", counts[:, :, 0::2] | (counts[:, :, 1::2] << 4), 101, width=SIZE[1])
        odd.add(folder / f"packed_{index}.mrc", counts)
    for index, compression in enumerate(("zstd", "zstd", "deflate", "deflate", None, None)):
        counts = odd.next_counts()
        write_tiff(folder / f"tiff_{index}.tiff", counts, compression=compression)
        odd.add(folder / f"tiff_{index}.tiff", counts)


def _names(odd: OddFolders) -> None:
    folder = odd.root / "names"
    names = [
        LATIN_1,
        b"with blanks and 'quotes' #1.tiff",
        b"tab\tand\nnewline.tiff",
        b"-rf.tiff",
        "naïve 🧊 µ.tiff".encode(),
        b"x" * 250 + b".tif",
        b"<b>bold<b>&amp;.tiff",
        b"percent%20done%s.tiff",
    ]
    folder.mkdir(parents=True)
    for name in names:
        counts = odd.next_counts()
        write_tiff(folder / "plain.tmp", counts)
        os.rename(folder / "plain.tmp", os.path.join(os.fsencode(folder), name))
        odd.add(os.path.join(os.fsencode(folder), name), counts)


def _plain(odd: OddFolders) -> None:
    for index in range(44):
        path = odd.root / "plain" / f"day{index % 2 + 1}" / f"movie_{index:03d}.tiff"
        counts = odd.next_counts()
        write_tiff(path, counts)
        odd.add(path, counts)


# -- what must not be used --------------------------------------------------------------------------------------------


def _system_folders(odd: OddFolders) -> None:
    for folder in ("$RECYCLE.BIN/S-1-5-21", "System Volume Information", "lost+found", "@eaDir", ".Trash-1000/files"):
        path = odd.root / folder / "deleted_movie.tiff"
        write_tiff(path, odd.next_counts())
        odd.refuse(path, "a folder of the system")
    for name in ("._movie_001.tiff", ".movie_002.tiff.Xy12Za", "movie_003.tiff.part", "~movie_004.tiff"):
        path = odd.root / "plain" / "day1" / name
        path.write_bytes(b"\0\5\x16\7" + bytes(200))
        odd.refuse(path, "a temporary name")


def _damaged(odd: OddFolders) -> None:
    folder = odd.root / "damaged"
    folder.mkdir(parents=True)
    counts = odd.next_counts()
    write_tiff(folder / "whole.tmp", counts)
    whole = (folder / "whole.tmp").read_bytes()
    (folder / "whole.tmp").unlink()
    huge = bytearray(whole)
    _set_tiff_size(huge, 180_000)
    files: dict[str, bytes] = {
        "truncated.tiff": whole[: len(whole) * 2 // 3],
        "huge.tiff": bytes(huge),
        "empty.tiff": b"",
        "zeros.tiff": bytes(50_000),
        "text.tiff": b"This is a readme that somebody named .tiff\n" * 50,
        "page.mrc": b"<html><body>504 Gateway Time-out</body></html>" * 60,
        "bomb.png": _png(60_000, 60_000, b"\0" * 100),
        "short.eer": whole[:3000],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        odd.refuse(folder / name, "damaged")
    write_mrc(folder / "too_few_bytes.mrc", counts[:4], 0, nz=FRAMES)
    write_mrc(folder / "too_many_bytes.mrc", counts, 0, nz=1)
    write_mrc(folder / "impossible.mrc", counts[:1], 0, nz=2_000_000_000)
    for name in ("too_few_bytes.mrc", "too_many_bytes.mrc", "impossible.mrc"):
        odd.refuse(folder / name, "header and bytes do not agree")
    path = folder / "six_of_forty.tif"
    write_tiff(path, odd.next_counts()[:6])
    write_mdoc(path, 40)
    odd.refuse(path, "the metadata says more frames")


def _no_movies(odd: OddFolders) -> None:
    folder = odd.root / "aligned"
    for index in range(3):
        path = folder / f"sum_{index}.tif"
        write_tiff(path, odd.next_counts().sum(axis=0, dtype=np.uint16)[None])
        odd.refuse(path, "a single frame")


def _another_camera(odd: OddFolders) -> None:
    for index in range(2):
        path = odd.root / "other-camera" / f"wide_{index}.tiff"
        write_tiff(path, np.random.default_rng(index).poisson(3.0, (FRAMES, 384, 640)).astype(np.uint8))
        odd.refuse(path, "the gain reference does not fit")


def _links(odd: OddFolders) -> None:
    folder = odd.root / "links"
    folder.mkdir(parents=True)
    (folder / "nowhere.tiff").symlink_to(odd.root / "gone.tiff")
    target = next(path for path in odd.good if b"serialem" in path)
    (folder / "same.tif").symlink_to(os.fsdecode(target))
    odd.copies[os.fsencode(folder / "same.tif")] = target


def _renamed_copy(odd: OddFolders) -> None:
    """The folder of EPU once more, as it is after somebody has copied it to a better name."""
    before = os.fsencode(odd.root / "epu")
    for path in [path for path in odd.good if path.startswith(before)][:6]:
        copy = os.fsencode(odd.root / "copied later") + path[len(before) :]
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        Path(os.fsdecode(copy)).write_bytes(Path(os.fsdecode(path)).read_bytes())
        odd.copies[copy] = path


# -- writers that know nothing of Beamside's ------------------------------------------------------------------------


def write_tiff(path: Path, frames: npt.NDArray[Any], compression: str | None = "lzw", **options: Any) -> None:
    """Write one page a frame, the top row first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, frames[:, ::-1], photometric="minisblack", compression=compression, metadata=None, **options)


def write_mrc(
    path: Path,
    frames: npt.NDArray[Any],
    mode: int,
    *,
    order: str = "<",
    nz: int | None = None,
    imod: int | None = None,
    dtype: str | None = None,
    width: int | None = None,
) -> None:
    """Write an MRC file, with a header that may lie about the number of frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, wide = frames.shape
    size = (width or wide, height, count if nz is None else nz)
    header = bytearray(1024)
    struct.pack_into(order + "4i", header, 0, *size, mode)
    struct.pack_into(order + "3i", header, 28, size[0], size[1], 1)
    struct.pack_into(order + "6f", header, 40, size[0] * 1.3, size[1] * 1.3, 1.3, 90, 90, 90)
    struct.pack_into(order + "3i", header, 64, 1, 2, 3)
    struct.pack_into(order + "i", header, 108, 20140)
    if imod is not None:
        struct.pack_into(order + "2i", header, 152, IMOD_STAMP, imod)
    header[208:216] = b"MAP " + (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(bytes(header) + np.ascontiguousarray(frames.astype(dtype) if dtype else frames).tobytes())


def write_epu_xml(path: Path, dose: float) -> None:
    """Write the part of EPU's XML that says pixel size, voltage and dose."""
    shared = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
    arrays = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
    path.write_text(
        f'<MicroscopeImage xmlns="{shared}"><CustomData xmlns:a="{arrays}"><a:KeyValueOfstringanyType><a:Key>Dose</a:Key>'
        f"<a:Value>{dose * 1e20:.6E}</a:Value></a:KeyValueOfstringanyType></CustomData><SpatialScale><pixelSize><x>"
        "<numericValue>1.3E-10</numericValue></x></pixelSize></SpatialScale><microscopeData><gun>"
        "<AccelerationVoltage>300000</AccelerationVoltage></gun></microscopeData></MicroscopeImage>"
    )


def write_mdoc(movie: Path, frames: int) -> None:
    """Write SerialEM's description of a movie beside it."""
    Path(f"{movie}.mdoc").write_text(
        f"T = SerialEM: Acquired on a simulated camera\nVoltage = 300\n\n[FrameSet = 0]\nPixelSpacing = 1.3\nExposureDose = "
        f"{SETTINGS.dose_per_frame * frames}\nNumSubFrames = {frames}\nSubFramePath = X:\\frames\\{movie.name}\n"
    )


def _set_tiff_size(content: bytearray, size: int) -> None:
    """Let the first directory of a little-endian TIFF claim `size` rows and columns."""
    (offset,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, offset)
    for entry in range(offset + 2, offset + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", content, entry)
        if tag in (256, 257):
            struct.pack_into("<HII", content, entry + 2, 4, 1, size)


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def files_below(root: Path) -> Iterator[bytes]:
    """Yield every file that could be taken for an image, as bytes."""
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            if name.lower().endswith((b".tif", b".tiff", b".mrc", b".mrcs", b".eer", b".png")):
                yield os.path.join(folder, name)
