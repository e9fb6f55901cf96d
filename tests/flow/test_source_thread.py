"""The thread that takes files in: whatever a file raises, it fails that file, and the thread and the other files go on."""

from __future__ import annotations

import queue
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.acquisition.intake import Intake
from beamside.acquisition.kinds import MOVIE, SourceKind
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.passed_over import PassedOver
from beamside.acquisition.reports import ImportedFile
from beamside.acquisition.settings import AcquisitionSettings
from beamside.acquisition.storage import Storage
from beamside.camera.gain.sums import sum_of_movies
from beamside.flow.source_thread import FileImported, SourceSeen, SourceThread
from beamside.formats.tiff import write_tiff

RAISED = [
    MemoryError("32 GiB"),
    struct.error("unpack"),
    RecursionError("too deep"),
    OverflowError("int"),
    KeyError(273),
]


class Prepare:
    def __call__(self, taken: ImportedFile) -> tuple[dict[str, str], dict[str, Any]]:
        return {"movie": taken.path}, {}

    def retry(self) -> None:
        return


def movie(path: Path, value: int = 1) -> Path:
    write_tiff(path, np.full((3, 64, 64), value, np.uint8), compression="none")
    return path


def claim_32_gib(path: Path) -> None:
    """Change width, length and bits as flipped bits can, and leave all else sound."""
    data = bytearray(path.read_bytes())
    offset = struct.unpack_from("<I", data, 4)[0]
    while offset:
        count = struct.unpack_from("<H", data, offset)[0]
        for place in range(offset + 2, offset + 2 + 12 * count, 12):
            tag = struct.unpack_from("<H", data, place)[0]
            if tag in (256, 257, 278):
                struct.pack_into("<HHII", data, place, tag, 4, 1, 131072)
            elif tag == 258:
                struct.pack_into("<HHII", data, place, tag, 3, 1, 16)
        offset = struct.unpack_from("<I", data, offset + 2 + 12 * count)[0]
    path.write_bytes(data)


def run(folder: Path, source: SourceKind = MOVIE) -> tuple[set[str], dict[str, str]]:
    """Let the thread work until nothing waits; return the names of what was taken, and why files were set aside."""
    settings = AcquisitionSettings(data=(str(folder / "camera"),), poll_seconds=0.01, settle_seconds=0.0, attempts=2)
    events: queue.Queue[Any] = queue.Queue()
    intake = Intake(settings, folder / "project/raw", Manifest(folder / "project"), kind=source)
    thread = SourceThread(intake, Prepare(), events, 0.01)
    thread.start()
    taken, aside = set(), {}
    try:
        while len(taken) + len(aside) < len(list((folder / "camera").iterdir())):
            event = events.get(timeout=30)
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, FileImported):
                taken.add(Path(event.file.path).name)
            if isinstance(event, SourceSeen):
                aside.update({Path(one.source).name: one.reason for one in event.report.set_aside})
    finally:
        thread.end.set()
        thread.join()
    return taken, aside


def test_a_header_that_asks_for_32_gib_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    for number, name in enumerate(("a0.tiff", "bad.tiff", "z9.tiff")):
        movie(tmp_path / "camera" / name, number)
    claim_32_gib(tmp_path / "camera/bad.tiff")
    taken, aside = run(tmp_path)
    assert taken == {"a0.tiff", "z9.tiff"}
    assert "131072 x 131072 pixels" in aside["bad.tiff"]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["inspecting", "naming", "taking"])
def test_whatever_a_file_raises_fails_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    for number, name in enumerate(("a.tiff", "odd.tiff", "z.tiff")):
        movie(tmp_path / "camera" / name, number)
    inspect, kind, store = MOVIE.inspect, PassedOver.remark, Storage.store_movie

    def odd_inspect(path: str) -> Any:
        if "odd" in path and where == "inspecting":
            raise error
        return inspect(path)

    def odd_kind(passed_over: PassedOver, sighting: Any, *rest: Any) -> Any:
        if "odd" in sighting.path and where == "naming":
            raise error
        return kind(passed_over, sighting, *rest)

    def odd_store(storage: Storage, sighting: Any, *rest: Any) -> Any:
        if "odd" in sighting.path and where == "taking":
            raise error
        return store(storage, sighting, *rest)

    monkeypatch.setattr(PassedOver, "remark", odd_kind)
    monkeypatch.setattr(Storage, "store_movie", odd_store)
    taken, aside = run(tmp_path, replace(MOVIE, inspect=odd_inspect))
    assert taken == {"a.tiff", "z.tiff"}
    assert type(error).__name__ in aside["odd.tiff"]


def test_a_worker_sums_the_movies_that_can_be_read(tmp_path: Path) -> None:
    good, bad = movie(tmp_path / "good.tiff"), movie(tmp_path / "bad.tiff")
    claim_32_gib(bad)
    total, frames, used, unreadable = sum_of_movies([bad, good], (64, 64), 1)
    assert (frames, used, len(unreadable)) == (3, 1, 1)
    assert (total == 3).all()
