"""What a movie's metadata say beside what the session was told."""

from __future__ import annotations

from collections.abc import Iterator

from beamside.acquisition.arrivals import Remark, TakenFile
from beamside.acquisition.metadata_check import Given, compare_metadata
from beamside.flow.settings import SessionSettings
from beamside.jobs.fractions import left_over_sentence, upsampling_of

METADATA = "metadata-"
"""How the subjects of these remarks begin; they are made anew when the settings change."""


def metadata_remarks(settings: SessionSettings, taken: TakenFile) -> Iterator[Remark]:
    """Yield a remark on each value that the microscope gives otherwise, and on raw frames that are not used."""
    optics, motion = settings.optics.optics(), settings.having("eer_upsampling")
    movies = settings.mode == "movies"
    given = Given(
        pixel_size=optics.pixel_size,
        voltage=optics.voltage,
        total_dose=optics.frame_dose(taken.frames) * taken.frames if movies else 0.0,
        frames=taken.frames,
        dose_flag="--total-dose" if optics.total_dose > 0 else "--dose",
        width=taken.shape[1],
        upsampling=upsampling_of(taken.path, motion) if motion is not None else 1,
    )
    yield from compare_metadata(taken.metadata, given, item=taken.name)
    if movies and motion is not None and (told := left_over_sentence(taken.path, taken.frames, motion, optics)):
        yield Remark(f"{METADATA}frames-left-over", told, taken.name)
