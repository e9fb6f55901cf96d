"""The worker's part of the gain reference: compare it with movies, decide, draw what the movies say, and write the file that jobs multiply by.

Torch is not loaded for this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.acquisition.gain import check_fit, prepare_gain, read_gain
from beamside.acquisition.gain_choice import Asked, Choice, as_said, choose
from beamside.errors import BeamsideError
from beamside.execution.orphans import end_with_session
from beamside.formats.movies import open_movie
from beamside.formats.orientation import Orientation, fitting_ratio
from beamside.imaging.gain_orientation import Mode, Verdict, compare, compared_window
from beamside.imaging.gain_picture import gain_picture
from beamside.jobs.gain_task import GainOutcome, GainTask
from beamside.jobs.output import save_picture

EER_SUFFIX = ".eer"


def settle(task: GainTask) -> GainOutcome:
    """Do what `task` asks; raises GainError when the reference cannot be used with these movies."""
    if task.session[0]:
        end_with_session(*task.session)
    root, shape, asked = Path(task.root), (task.shape[0], task.shape[1]), Asked.from_json(task.asked)
    if task.decided is not None:
        rotate, flip, use = task.decided
        return GainOutcome(prepared=_prepare(task, Orientation(rotate, flip), use))  # type: ignore[arg-type]
    gain = read_gain(root / task.reference, task.name)
    check_fit((gain.shape[0], gain.shape[1]), shape, task.name, None if asked.rotate == "auto" else asked.rotate)
    default = _usual_mode(task)
    if not asked.check:
        choice = as_said(asked, default)
        return GainOutcome(_plain(choice), prepared=_prepare(task, choice.orientation, choice.use))
    ratio = fitting_ratio((gain.shape[0], gain.shape[1]), shape) or fitting_ratio((gain.shape[1], gain.shape[0]), shape)
    assert ratio is not None
    total, frames, used, unreadable = sum_of_movies([root / path for path in task.movies], shape, ratio)
    verdict = compare(total, gain, shape)
    name, command = task.name, task.command
    choice = choose(verdict, asked, default=default, movies=used, last=task.last, reference=name, command=command)
    prepared = _prepare(task, choice.orientation, choice.use) if choice.state == "decided" else None
    evidence = {
        **_evidence(verdict),
        "movies": used,
        "frames": frames,
        "counts_per_pixel": float(total.mean(dtype=np.float64)),
        "unreadable": unreadable,
    }
    if verdict.best is not None and choice.state != "open" and verdict.kind != "flat":
        shown = choice.orientation if choice.state == "decided" else verdict.best.orientation
        mode: Mode = verdict.best.mode if choice.use == "none" or choice.state != "decided" else choice.use
        save_picture(root / task.picture, gain_picture(total, gain, shape, verdict, shown, mode, used))
        evidence["picture"] = task.picture
    return GainOutcome(_plain(choice), evidence, prepared)


def _usual_mode(task: GainTask) -> Mode:
    """RELION divides EER movies by a reference in MRC, and multiplies by one in .gain; all other movies are multiplied."""
    eer = any(Path(movie).suffix.lower() == EER_SUFFIX for movie in task.movies)
    return "divide" if eer and Path(task.name).suffix.lower() in (".mrc", ".mrcs") else "multiply"


def sum_of_movies(
    paths: Sequence[Path], shape: tuple[int, int], ratio: float
) -> tuple[NDArray[np.float32], int, int, list[str]]:
    """Return the sum of all frames inside the window that is compared, the number of frames and of movies in it, and why others are not."""
    window = compared_window(shape, ratio)
    total = np.zeros(tuple(part.stop - part.start for part in window), np.float32)
    frames = used = 0
    unreadable = []
    for path in paths:
        part = np.zeros_like(total)
        try:
            with open_movie(path) as movie:
                for index in range(movie.frames):
                    part += movie.frame(index)[window]
                frames += movie.frames
        except (BeamsideError, OSError) as error:  # the movie's own job tells of it
            unreadable.append(f"{path.name}: {error}")
            continue
        total += part
        used += 1
    return total, frames, used, unreadable


def _evidence(verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "margin": verdict.margin if np.isfinite(verdict.margin) else 0.0,
        "pattern": verdict.pattern,
        "matches": [
            [match.orientation.rotate, match.orientation.flip, match.slope, match.error] for match in verdict.matches
        ],
    }


def _plain(choice: Choice) -> dict[str, Any]:
    return {
        "state": choice.state,
        "rotate": choice.orientation.rotate,
        "flip": choice.orientation.flip,
        "use": choice.use,
        "by": choice.by,
        "sentence": choice.sentence,
    }


def _prepare(task: GainTask, orientation: Orientation, use: str) -> dict[str, Any]:
    if use == "none":
        return {}
    root, output = Path(task.root), Path(task.root) / task.output
    output.parent.mkdir(parents=True, exist_ok=True)
    eer = any(Path(movie).suffix.lower() == EER_SUFFIX for movie in task.movies)
    reciprocal = output.with_name(f"{output.stem}_relion{output.suffix}")
    prepared = prepare_gain(
        root / task.reference,
        (task.shape[0], task.shape[1]),
        flip=orientation.flip,
        rotate=orientation.rotate,
        divide=use == "divide",
        output=output,
        reciprocal=reciprocal if eer else None,
        name=task.name,
    )
    found = {
        "gain": task.output,
        "gain_sha256": file_hash(output),
        "defects": prepared.defects,
        "ratio": prepared.ratio,
        "warnings": list(prepared.warnings),
    }
    if eer:
        found["relion_gain"] = f"{Path(task.output).parent}/{reciprocal.name}"
    return found


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
