"""How long it takes to read movies: ``python -m benchmarks.formats``.

Frames of TIFF movies are timed beside the decoder alone, and EER movies beside RELION's rendering (``relion_convert_to_tiff``, which writes a TIFF
file as well: what that takes is measured on a file without electrons and taken off). Everything is CPU time of one thread.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from beamside.formats.eer import Coding
from beamside.formats.movies import open_movie
from beamside.formats.rendering import Rendering
from beamside.formats.tiff import write_tiff
from beamside.simulate.eer import Electrons, eer_bytes

SENSOR = (4096, 4096)
K3 = (4092, 5760)


def cpu(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the CPU-seconds that `work` takes, the least of some repeats."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def decode_all(decode: Callable[[bytes], object], strips: Sequence[bytes]) -> None:
    for strip in strips:
        decode(strip)


def tiff(folder: Path, frames: int) -> None:
    """Print the time to read a movie of the size of a K3's."""
    counts = np.random.default_rng(1).poisson(1.0, (frames, *K3)).astype(np.uint8)
    print(f"\n| {frames} frames of 5760 × 4092, CPU s for 40 | read | decoder alone | ratio |\n|---|---|---|---|")
    for compression in ("lzw", "zstd", "zlib", "none"):
        path = folder / f"{compression}.tiff"
        if compression in ("lzw", "none"):
            write_tiff(path, counts, compression=compression)
        else:
            tifffile.imwrite(path, counts[:, ::-1], photometric="minisblack", compression=compression)
        with tifffile.TiffFile(path) as file:
            strips = [
                path.read_bytes()[start : start + length]
                for page in file.pages
                for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
        decoders: dict[str, Callable[[bytes], object]] = {
            "lzw": imagecodecs.lzw_decode,
            "zstd": imagecodecs.zstd_decode,
            "zlib": imagecodecs.zlib_decode,
            "none": bytearray,
        }
        alone = cpu(partial(decode_all, decoders[compression], strips))
        with open_movie(path) as movie:
            read = cpu(movie.read)
        print(
            f"| {compression} | {read / frames * 40:.2f} | {alone / frames * 40:.2f} | {read / alone:.2f} |", flush=True
        )


def electrons(density: float, seed: int) -> Electrons:
    """Return the electrons of one raw frame."""
    rng = np.random.default_rng(seed)
    pixels = np.flatnonzero(rng.random(SENSOR, np.float32) < density)
    x, y = rng.integers(0, 4, (2, len(pixels)))
    return Electrons(pixels, x, y)


def relion(folder: Path, name: str, upsampling: int, frames: int) -> float:
    """Return the CPU-seconds of RELION's rendering and writing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ["--eer_grouping", str(frames), "--eer_upsampling", str(upsampling), "--compression", "none"]
    command = ["relion_convert_to_tiff", "--i", name, "--o", f"{upsampling}", *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def eer(folder: Path, frames: int, density: float) -> None:
    """Print the time to render an EER movie."""
    print(f"\n| EER, {density:g} electrons a pixel, ms a raw frame | rendered | RELION | ratio |\n|---|---|---|---|")
    for name, coding in (("7 + 4 bits", Coding(7, 2, 2)), ("8 + 4 bits", Coding(8, 2, 2))):
        drawn = [electrons(density, seed) for seed in range(4)]
        nothing = Electrons(*np.zeros((3, 1), int))
        (folder / "m.eer").write_bytes(eer_bytes(drawn * (frames // 4), SENSOR, coding))
        (folder / "empty.eer").write_bytes(eer_bytes([nothing] * frames, SENSOR, coding))
        for upsampling, words in ((1, "4K"), (2, "8K")):
            with open_movie(folder / "m.eer", Rendering(upsampling, frames)) as movie:
                ours = cpu(partial(movie.frame, 0)) / frames * 1000
            if shutil.which("relion_convert_to_tiff") is None:
                print(f"| {name}, {words} | {ours:.1f} | not installed | |")
                continue
            theirs = (
                relion(folder, "m.eer", upsampling, frames) - relion(folder, "empty.eer", upsampling, frames)
            ) / frames
            print(f"| {name}, {words} | {ours:.1f} | {theirs * 1000:.1f} | {ours / theirs / 1000:.2f} |", flush=True)


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8, help="frames of the TIFF movies (%(default)s)")
    parser.add_argument("--raw-frames", type=int, default=40, help="raw frames of the EER movies (%(default)s)")
    parser.add_argument("--density", type=float, default=0.02, help="electrons in a pixel of a raw frame (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        tiff(Path(place), options.frames)
        eer(Path(place), options.raw_frames, options.density)


if __name__ == "__main__":
    main()
