"""What the metadata of what was taken in say beside what the session was told."""

from __future__ import annotations

from collections.abc import Iterator

from beamside.acquisition.metadata_check import Given, compare_metadata
from beamside.acquisition.reports import ImportedFile, Remark
from beamside.flow.optics_rules import facts_of
from beamside.flow.settings import SessionSettings
from beamside.flow.sources import METADATA
from beamside.jobs.base import Optics
from beamside.jobs.fractions import left_over_sentence, upsampling_of


def movie_remarks(settings: SessionSettings, taken: ImportedFile) -> Iterator[Remark]:
    """Yield a remark on each value that the microscope gives otherwise, and on raw frames that are not used."""
    optics, motion = optics_of(settings, taken), settings.having("eer_upsampling")
    yield from _compared(settings, taken, optics.frame_dose(taken.frames) * taken.frames)
    if motion is not None and (told := left_over_sentence(taken.path, taken.frames, motion, optics)):
        yield Remark(f"{METADATA}frames-left-over", told, taken.name)


def micrograph_remarks(settings: SessionSettings, taken: ImportedFile) -> Iterator[Remark]:
    """Yield a remark on each value that the microscope gives otherwise; the dose of a sum is nobody's choice any more."""
    yield from _compared(settings, taken, 0.0)


def optics_of(settings: SessionSettings, taken: ImportedFile) -> Optics:
    """Return the optics of a file that was taken in."""
    return settings.optics.item_optics().of_facts(
        facts_of({"source": taken.source, "metadata": taken.metadata, "shape": taken.shape, "frames": taken.frames})
    )


def _compared(settings: SessionSettings, taken: ImportedFile, total_dose: float) -> Iterator[Remark]:
    optics, motion = optics_of(settings, taken), settings.having("eer_upsampling")
    given = Given(
        pixel_size=optics.pixel_size,
        voltage=optics.voltage,
        total_dose=total_dose,
        frames=taken.frames,
        dose_flag="--total-dose" if optics.total_dose > 0 else "--dose",
        group=optics.group,
        width=taken.shape[1],
        upsampling=upsampling_of(taken.path, motion) if motion is not None else 1,
    )
    yield from compare_metadata(taken.metadata, given, item=taken.name)
