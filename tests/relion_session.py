"""A made-up session that has run through all real job types, without their numerics: what RELION sees of it can be tested in moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beamside.flow.projection import Projection
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.table import Tables
from beamside.formats.star import read_star
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

PIXEL = 0.83
BOX, SMALL = 300, 64


class MadeSession:
    """Writes the journals of a session, and what RELION reads is made from them by the session's own code."""

    def __init__(self, folder: Path, **given: Any) -> None:
        values = {
            "target": folder,
            "name": "run 1",
            "data": (str(folder / "camera/*.tiff"),),
            "pixel_size": PIXEL,
            "voltage": 200,
            "dose": 1.25,
            "particle_diameter": "120:160",
            "classes": 20,
        }
        self.settings = SessionSettings.from_flat({**values, **given})
        self.root = self.settings.root
        self.writer = ProjectWriter(Project(self.root))
        self.writer.settings(self.settings.to_json())
        self.tables = Tables(self.settings, self.writer)
        self.stages = self.tables.stages
        self.projection = Projection(self.settings, self.writer, self.stages)

    def stage(self, name: str) -> Stage:
        return self.tables.stage(name)

    def job(self, name: str) -> str:
        """Return the name of the job of a type."""
        return self.stage(name).job.name

    def take(
        self, name: str = "raw/mic_0001", file: str = ".tiff", *, until: str = "extract", failed: str = ""
    ) -> None:
        """Take an item through the jobs up to `until`, where it fails when `failed` says why."""
        self.touch(f"{name}{file}")
        for stage in self.stages:
            if stage.job_type.aggregate:
                return
            job = stage.job.name
            if name not in stage.job.items:
                self.writer.item(job, name, ItemState.WAITING)
            self.writer.item(job, name, ItemState.QUEUED, attempt=1, optics=stage.optics.to_text())
            if stage.name == until and failed:
                self.writer.item(job, name, ItemState.FAILED, reason=failed, seconds=1.0)
                return
            result = self.result(stage.name, name, file)
            self.writer.item(job, name, ItemState.DONE, key="k", result=result, seconds=2.0)
            if stage.name == until:
                return

    def round(self, iteration: int) -> None:
        """Do a round of classification, and the selection from it."""
        name = f"round{len(self.stage('class2d').job.items) + 1:03d}"
        stem = f"{self.job('class2d')}/run_it{iteration:03d}"
        outputs = {role: f"{stem}_{role}.star" for role in ("data", "model", "sampling", "optimiser")}
        selected = {role: f"{self.job('select')}/{role}.star" for role in ("particles", "class_averages")}
        for path in (*outputs.values(), *selected.values()):
            self.touch(path)
        results = {
            "class2d": {"metrics": {"iterations": iteration, "classified": 100}, "outputs": outputs},
            "select": {"metrics": {"selected": 70}, "outputs": selected},
        }
        results["class2d"]["values"] = {"final": True, "mask_diameter": 176.0}
        for job, result in results.items():
            self.writer.item(self.job(job), name, ItemState.WAITING)
            self.writer.item(self.job(job), name, ItemState.QUEUED, attempt=1)
            self.writer.item(self.job(job), name, ItemState.DONE, key="k", result=result, seconds=3.0)

    def touch(self, path: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).touch()

    def result(self, kind: str, name: str, file: str) -> dict[str, Any]:
        path = {stage.name: f"{stage.job.name}/{name}" for stage in self.stages}[kind]
        return {
            "import": {
                "metrics": {"gigabytes": 0.2},
                "outputs": {"movie": f"{name}{file}"},
                "values": {"source": f"/camera/{name}{file}", "frames": 40},
            },
            "motion": {
                "metrics": {"motion_total": 8.0, "motion_early": 3.0, "motion_late": 5.0},
                "outputs": {
                    "micrograph": f"{path}.mrc",
                    "power_spectrum": f"{path}_PS.mrc",
                    "motion_star": f"{path}.star",
                },
                "values": {
                    "pixel_size": PIXEL,
                    "spectrum_pixel_size": 1.4,
                    "dose_per_frame": 1.25,
                    "shape": [4092, 5760],
                },
            },
            "ctf": {
                "metrics": {"astigmatism": 200.0, "ctf_score": 0.2, "ctf_resolution": 4.5},
                "outputs": {"ctf_spectrum": f"{path}_PS.ctf"},
                "values": {
                    "micrograph_pixel_size": PIXEL,
                    "micrographs_star": "CtfFind/job003/micrographs_ctf.star",
                    "defocus_u": 15200.5,
                    "defocus_v": 15000.25,
                    "defocus_angle": 30.5,
                    "phase_shift": 0.0,
                },
            },
            "pick": {
                "metrics": {"particles": 60, "pick_score": 20.0},
                "outputs": {"coordinates": f"{path}_autopick.star"},
                "values": {"max_diameter": 160.0},
            },
            "extract": {
                "metrics": {"extracted": 50, "at_edge": 10},
                "values": {"image_pixel_size": PIXEL * BOX / SMALL, "image_size": SMALL, "box": BOX},
            },
        }[kind]

    def finish(self, ending: Any = "finished") -> None:
        """Let RELION see all of it, and the jobs end."""
        self.projection.refresh(dict, force=True)
        self.projection.close_jobs(ending)
        self.writer.close()

    def options(self, name: str) -> dict[str, str]:
        """Return what the ``job.star`` of a job says."""
        return job_options(self.root / self.job(name) / "job.star")


def job_options(path: Path) -> dict[str, str]:
    table = read_star(path)["joboptions_values"]
    columns: Sequence[Sequence[str]] = [table.texts(f"rlnJobOption{part}") for part in ("Variable", "Value")]
    return dict(zip(*columns, strict=True))
