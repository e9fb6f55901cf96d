"""A copy is the same as its source, or it does not exist."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beamside.acquisition import compression, transfer
from beamside.acquisition.compression import can_compress, compress_movie, same_pixels
from beamside.acquisition.readiness import Settling, inspect_file
from beamside.acquisition.scan import Sighting, look_at
from beamside.acquisition.transfer import CHUNK_BYTES, DestinationError, copy_verified, hash_file
from beamside.errors import CorruptFileError, InputError, NotReadyError, TransferError
from beamside.formats.mrc import write_mrc
from beamside.formats.tiff import write_tiff


def source_of(tmp_path: Path, content: bytes = b"counts") -> Sighting:
    path = tmp_path / "source file.tiff"
    path.write_bytes(content)
    sighting = look_at(str(path))
    assert sighting is not None
    return sighting


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_copies_of_any_length_are_exact(tmp_path: Path, length: int) -> None:
    content = np.random.default_rng(length).bytes(length)
    sighting = source_of(tmp_path, content)
    copied = copy_verified(sighting, tmp_path / "new folder" / "copy.tiff")
    assert (tmp_path / "new folder" / "copy.tiff").read_bytes() == content
    assert copied.sha256 == hashlib.sha256(content).hexdigest()
    assert copied.bytes_per_second >= 0


def test_an_equal_file_is_accepted_and_another_one_never_overwritten(tmp_path: Path) -> None:
    sighting, target = source_of(tmp_path), tmp_path / "copy"
    target.write_bytes(b"counts")
    inode = target.stat().st_ino
    copy_verified(sighting, target)
    assert target.stat().st_ino == inode
    target.write_bytes(b"other!")
    with pytest.raises(TransferError, match="not a copy"):
        copy_verified(sighting, target)
    assert target.read_bytes() == b"other!"


def test_a_bit_that_flips_on_the_way_to_the_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sighting = source_of(tmp_path, b"\0" * 1000)
    write = os.write

    def flip(descriptor: int, data: memoryview) -> int:
        return write(descriptor, bytes(data[:-1]) + bytes([data[-1] ^ 4]))

    monkeypatch.setattr(transfer.os, "write", flip)
    with pytest.raises(TransferError, match="differs from what was read"):
        copy_verified(sighting, tmp_path / "out" / "copy")
    assert list((tmp_path / "out").iterdir()) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(transfer.os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    copy_verified(source_of(tmp_path, bytes(range(100))), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(range(100))


@pytest.mark.parametrize("change", ["append", "touch", "replace", "remove"])
def test_a_source_that_changes_during_the_copy_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sighting = source_of(tmp_path, b"x" * 5000)
    source = Path(sighting.path)
    write = os.write

    def meanwhile(descriptor: int, data: memoryview) -> int:
        if change == "append":
            with open(source, "ab") as file:
                file.write(b"more")
        elif change == "touch":
            os.utime(source, ns=(1, 1))
        elif change == "replace":
            (tmp_path / "other").write_bytes(b"y" * 5000)
            os.utime(tmp_path / "other", ns=(1, 1))
            os.replace(tmp_path / "other", source)
        else:
            source.unlink()
        monkeypatch.setattr(transfer.os, "write", write)
        return write(descriptor, data)

    monkeypatch.setattr(transfer.os, "write", meanwhile)
    with pytest.raises(NotReadyError, match=r"changed|gone"):
        copy_verified(sighting, tmp_path / "out" / "copy")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "told"), [(errno.ENOSPC, "is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "may not be written")]
)
def test_a_destination_that_takes_no_more_is_told_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(transfer.os, "write", refuse)
    with pytest.raises(DestinationError, match=told):
        copy_verified(source_of(tmp_path), tmp_path / "out" / "copy")
    assert list((tmp_path / "out").iterdir()) == []


def test_too_little_space_is_seen_before_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 3

    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(DestinationError, match="make room"):
        copy_verified(source_of(tmp_path), tmp_path / "copy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_missing_permissions_are_told(tmp_path: Path) -> None:
    sighting = source_of(tmp_path)
    os.chmod(sighting.path, 0)
    with pytest.raises(TransferError, match="may not be read"):
        copy_verified(sighting, tmp_path / "copy")


def test_a_failing_source_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    sighting = source_of(tmp_path)
    monkeypatch.setattr("builtins.open", broken)
    with pytest.raises(TransferError, match="Input/output error"):
        copy_verified(sighting, tmp_path / "copy")


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i1"])
@pytest.mark.parametrize("suffix", [".mrc", ".tiff"])
def test_compression_keeps_every_pixel(
    tmp_path: Path, counts: Callable[..., np.ndarray], dtype: str, suffix: str
) -> None:
    frames = counts(dtype=dtype)
    source, target = tmp_path / f"m{suffix}", tmp_path / "c.tiff"
    if suffix == ".mrc":
        write_mrc(source, frames)
    else:
        write_tiff(source, frames, compression="none")
    assert can_compress(inspect_file(str(source)))
    assert compress_movie(source, target, threads=2)
    assert inspect_file(str(target)).compression == "lzw"
    assert same_pixels(source, target)


def test_what_does_not_get_smaller_or_holds_negative_bytes_stays(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (2, 40, 40), dtype=np.uint16)
    write_mrc(tmp_path / "noise.mrc", noise)
    write_mrc(tmp_path / "negative.mrc", np.full((2, 9, 9), -1, np.int8))
    for name in ("noise.mrc", "negative.mrc"):
        assert not compress_movie(tmp_path / name, tmp_path / "c.tiff")
    assert not (tmp_path / "c.tiff").exists()


def test_images_floats_and_compressed_movies_are_not_compressed(
    tmp_path: Path, counts: Callable[..., np.ndarray]
) -> None:
    write_mrc(tmp_path / "image.mrc", counts()[0].astype(np.int16))
    write_mrc(tmp_path / "float.mrc", counts().astype(np.float32))
    write_tiff(tmp_path / "lzw.tiff", counts())
    assert not any(can_compress(inspect_file(str(tmp_path / name))) for name in ("image.mrc", "float.mrc", "lzw.tiff"))


def test_a_compressor_that_changes_a_pixel_is_caught(
    tmp_path: Path, counts: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mrc(tmp_path / "m.mrc", counts(dtype="u2"))
    changed = counts(dtype="u2")
    changed[1, 2, 3] += 1
    monkeypatch.setattr(compression, "_frames", lambda _: iter(changed))
    with pytest.raises(TransferError, match="changed its pixels"):
        compress_movie(tmp_path / "m.mrc", tmp_path / "c.tiff")
    assert not (tmp_path / "c.tiff").exists()


def test_settling_needs_the_same_look_after_the_time() -> None:
    now = [0.0]
    settling = Settling(2.0, lambda: now[0])
    small, large = Sighting("/a", 1, 9), Sighting("/a", 2, 9)
    assert not settling.observe(small)
    now[0] = 1.0
    assert not settling.observe(small)
    now[0] = 2.5
    assert not settling.observe(large)
    now[0] = 4.5
    assert settling.observe(large)
    assert not settling.observe(Sighting("/a", 2, 8))
    settling.forget("/a")
    assert not settling.observe(large)


def test_unreadable_and_foreign_files_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.tiff").mkdir()
    with pytest.raises(CorruptFileError, match="cannot be read"):
        inspect_file(str(tmp_path / "folder.tiff"))
    with pytest.raises(InputError, match="not a movie"):
        inspect_file(str(tmp_path / "x.ser"))


def test_a_file_that_is_longer_than_was_said_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grown"
    path.write_bytes(bytes(range(256)) * 20)
    monkeypatch.setattr("beamside.acquisition.transfer._buffer", lambda _size: memoryview(bytearray(7)))
    assert hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(NotReadyError):
        copy_verified(Sighting(str(path), 3, path.stat().st_mtime_ns), tmp_path / "copy")
