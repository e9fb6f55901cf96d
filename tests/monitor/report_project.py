"""A made-up session for tests of the report: items that end in every way, small pictures, rounds of classification."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from beamside.flow.settings import SessionSettings
from beamside.flow.workflow import find_workflow
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

BAD_NAME = "raw/<script>alert(1)<img src=x>&\"'"
"""A file name that would be a program if it were not escaped."""

METRICS: dict[str, dict[str, float]] = {
    "import": {"gigabytes": 0.25, "megabytes_per_second": 180.0},
    "motion": {"motion_total": 12.0, "motion_early": 5.0, "motion_late": 7.0, "local_motion": 3.0},
    "ctf": {"defocus": 15000.0, "astigmatism": 250.0, "ctf_resolution": 4.1, "ctf_score": 0.15, "ice_ring": 0.01},
    "pick": {"particles": 80.0, "pick_score": 20.0, "masked_fraction": 0.05},
    "extract": {"extracted": 70.0, "at_edge": 10.0},
}


VALUES: dict[str, dict[str, Any]] = {"extract": {"box": 180, "image_size": 60, "image_pixel_size": 3.3}}


class MadeUpSession:
    """Writes the journals of a session; `clock` is the time that the next record has."""

    def __init__(self, root: Path, mode: str = "movies", size: int = 64) -> None:
        self.root, self.size, self.clock = root, size, 1_790_000_000.0
        self.random = np.random.default_rng(1)
        self.writer = ProjectWriter(Project(root))
        settings = SessionSettings.from_flat(
            {"target": root.parent, "name": "run1", "group": "lab", "data": ("/camera/*.tiff",), "pixel_size": 1.1}
            | {"voltage": 300, "mode": mode, "classes": 20}
        )
        self.writer.settings(settings.to_json())
        self.workflow = find_workflow(mode)
        self.kinds = [job.type for job in self.workflow.jobs]
        self.jobs: dict[str, str] = {}

    def now(self) -> AbstractContextManager[object]:
        """Let the time of the session be the present."""
        return mock.patch("beamside.project.project.time.time", return_value=self.clock)

    def open_jobs(self) -> None:
        with self.now():
            self._open_jobs()

    def _open_jobs(self) -> None:
        for number, planned in enumerate(self.workflow.jobs, 1):
            kind, job = planned.type, f"{planned.type.directory}/job{number:03d}"
            ports = {port: f"{self.jobs[label]}.{output}" for port, (label, output) in planned.inputs.items()}
            self.writer.create_job(job, kind.name, {}, ports, label=planned.label)
            self.jobs[kind.name] = self.jobs[planned.label] = job
        self.writer.session("started")

    def item(
        self, number: int, *, name: str = "", stop: str = "", state: str = "failed", reason: str = "", device: str = ""
    ) -> str:
        """Take an item through all jobs, or to the job `stop`, where it ends in `state` ("waiting" leaves it there); motion on a `device`."""
        name = name or f"raw/FoilHole_{number:04d}_Fractions"
        for kind in self.kinds:
            if kind.aggregate:
                continue
            job = self.jobs[kind.name]
            self._record(job, name, ItemState.WAITING)
            if stop == kind.name and state == "waiting":
                return name
            self._record(job, name, ItemState.QUEUED, attempt=1)
            result = self._result(kind.name, number, name, reason if state == "rejected" and stop == kind.name else "")
            if stop == kind.name:
                found = {"result": result} if state == "rejected" else {}
                self._record(job, name, ItemState(state), reason=reason, seconds=1.0, **found)
                return name
            where = {"host": "node1", "pid": 7, "device": device} if device and kind.name == "motion" else None
            self._record(job, name, ItemState.DONE, key="k", result=result, seconds=2.0, where=where)
        return name

    def again(self, names: list[str], first: str) -> None:
        """Compute items again from the job `first` on, as after its settings were changed."""
        chain = [kind.name for kind in self.kinds if not kind.aggregate]
        jobs = [self.jobs[name] for name in chain[chain.index(first) :]]
        for job in jobs:
            for name in names:
                self._record(job, name, ItemState.WAITING, reason="inputs changed")
        for job, kind in zip(jobs, chain[chain.index(first) :], strict=True):
            for number, name in enumerate(names):
                self._record(job, name, ItemState.QUEUED, attempt=1)
                self._record(
                    job, name, ItemState.DONE, key="l", result=self._result(kind, number, name, ""), seconds=2.0
                )

    def round(self, number: int, particles: int) -> None:
        """Add a round of 2D classification."""
        job, name = self.jobs["class2d"], f"round{number:03d}"
        montage = f"{job}/run_it{number:03d}_classes.png"
        self._picture(montage, 6 * self.size, 4 * self.size)
        table = [
            {
                "particles": particles * part // 100,
                "weight": part / 100,
                "resolution": 12.0 - part / 10,
                "quality": part / 50,  # as earlier versions wrote it: another measure than the class score
            }
            for part in (0, 40, 25, 35)
        ]
        result = {
            "metrics": {
                "classified": float(particles),
                "classes_used": 3.0,
                "class_resolution": 8.4,
                "iterations": 25.0,
            },
            "outputs": {"classes_image": montage},
            "values": {"class_table": table, "final": number > 1, "mask_diameter": 198.0},
        }
        self._record(job, name, ItemState.WAITING)
        self._record(job, name, ItemState.QUEUED, attempt=1)
        self._record(job, name, ItemState.DONE, key="k", result=result, seconds=61.0)

    def selection(self, classes: list[tuple[int, float, bool]]) -> None:
        """Add a round of class selection; each class is its particles, score, and whether it is kept."""
        job = self.jobs["select"]
        table = [
            {"particles": count, "score": score, "kept": kept, "resolution": 12.0, "long": 150.0}
            for count, score, kept in classes
        ]
        result = {"metrics": {"selected": 80.0}, "outputs": {}, "values": {"class_table": table, "final": True}}
        self._record(job, "round001", ItemState.WAITING)
        self._record(job, "round001", ItemState.QUEUED, attempt=1)
        self._record(job, "round001", ItemState.DONE, key="k", result=result, seconds=1.0)

    def close(self, state: str = "finished") -> Project:
        """End the session in order ("" leaves it as a killed one is left)."""
        self.clock += 5
        with self.now():
            if state:
                self.writer.session(state)
        self.writer.close()
        return self.writer.project

    def _record(self, job: str, name: str, state: ItemState, **details: Any) -> None:
        self.clock += 0.7
        with self.now():
            self.writer.item(job, name, state, **details)

    def _result(self, kind: str, number: int, name: str, rejected: str) -> dict[str, Any]:
        wave = 1.0 + 0.3 * math.sin(number / 5) + 0.1 * float(self.random.standard_normal())
        outputs = {}
        declared = next(each for each in self.kinds if each.name == kind)
        for picture in declared.pictures if name != BAD_NAME else ():
            if kind == "ctf" and picture.role == "thumbnail" and "motion" in self.jobs:
                continue  # motion correction has drawn it
            outputs[picture.role] = f"{self.jobs[kind]}/{name}_{picture.role}.png"
            self._picture(outputs[picture.role], self.size, self.size)
        return {
            "metrics": {
                metric: value * abs(wave) for metric, value in METRICS[kind.removesuffix("_micrographs")].items()
            },
            "outputs": outputs,
            "values": VALUES.get(kind.removesuffix("_micrographs"), {}),
            "rejected": rejected,
        }

    def _picture(self, relative: str, width: int, height: int) -> None:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = self.random.normal(128, 40, (height, width)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(path)


def make_session(root: Path, items: int = 60, *, size: int = 64) -> Project:
    """Make a session with `items` files: of each ten one fails and one is rejected, one has a bad name, two are not finished."""
    session = MadeUpSession(root, size=size)
    session.open_jobs()
    for number in range(items - 3):
        if number % 10 == 4:
            session.item(number, stop="motion", reason=f"raw/FoilHole_{number:04d}_Fractions has {number} frames only.")
        elif number % 10 == 7:
            session.item(number, stop="ctf", state="rejected", reason=f"the CTF fit holds to {number}.5 Å only")
        else:
            session.item(number)
    session.item(items, name=BAD_NAME, stop="import", reason="<b>not</b> a movie & </script><script>alert(2)</script>")
    for number in (items + 1, items + 2):
        session.item(number, stop="pick", state="waiting")
    session.round(1, 1000)
    session.round(2, 2400)
    with session.now():
        session.writer.note("warning", "The gain reference <gain.mrc> has 3 zeros.")
    return session.close()
