"""The worker's part of the gain reference: compare it with movies, decide, draw what the movies say, and write the file that jobs multiply by.

Torch is not loaded for this.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.acquisition.gain import check_fit, prepare_gain, read_gain
from beamside.acquisition.gain_choice import Asked, Choice, Use, as_said, choose
from beamside.acquisition.gain_doubt import Doubt, MovieSlope, contradicts, find_doubt, odd_movies
from beamside.camera.gain.need_worker import look_for_need
from beamside.camera.gain.sums import file_hash, is_eer, sum_of_movies
from beamside.camera.gain.task import GainOutcome, GainTask
from beamside.formats.atomic import sync_directory
from beamside.formats.orientation import Orientation, fitting_ratio
from beamside.imaging.gain.orientation import Mode, Verdict, compare, slope_of
from beamside.imaging.gain.picture import gain_picture
from beamside.jobs.output import save_picture

DIGITS = 12
"""So many of the digest's digits are in the name of a prepared file."""


def settle(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the `GainTask` asks that is given as a dictionary; return the dictionary of a `GainOutcome`.

    Raises
    ------
    GainError
        when the reference cannot be used with these movies, which no other attempt changes
    """
    return asdict(_settled(GainTask(**asked)))


def _settled(task: GainTask) -> GainOutcome:
    if task.do == "need":
        return look_for_need(task)
    if task.do == "prepare":
        assert task.decided is not None
        rotate, flip, use = task.decided
        return GainOutcome(prepared=_prepare(task, Orientation(rotate, flip), use))  # type: ignore[arg-type]
    return _look(task) if task.do == "look" else _check(task)


def _check(task: GainTask) -> GainOutcome:
    """Compare the reference with the movies, and say how it is used."""
    root, shape, asked = Path(task.root), task.shape, Asked.from_json(task.asked)
    gain = read_gain(root / task.reference, task.name)
    check_fit((gain.shape[0], gain.shape[1]), _pair(shape), task.name, None if asked.rotate == "auto" else asked.rotate)
    default = _usual_mode(task)
    if not asked.check:
        return GainOutcome(_plain(as_said(asked, default)))
    total, frames, used, unreadable = _sum(task, gain, task.movies)
    verdict = compare(total, gain, _pair(shape))
    name, command = task.name, task.command
    choice = choose(verdict, asked, default=default, movies=used, last=task.last, reference=name, command=command)
    evidence = _evidence(verdict, total, used, frames, unreadable)
    if verdict.best is not None and choice.state != "open" and verdict.kind != "flat":
        shown = choice.orientation if choice.state == "decided" else verdict.best.orientation
        mode: Mode = verdict.best.mode if choice.use == "none" or choice.state != "decided" else choice.use
        evidence["picture"] = _draw(task, total, gain, verdict, shown, mode, used)
    return GainOutcome(_plain(choice), evidence)


def _look(task: GainTask) -> GainOutcome:
    """Say whether the newest movies bear out what was decided; nothing is prepared, and nothing decided."""
    assert task.decided is not None
    rotate, flip, use = task.decided
    orientation, shape = Orientation(rotate, flip), _pair(task.shape)  # type: ignore[arg-type]
    used_as: Use = use  # type: ignore[assignment]
    gain = read_gain(Path(task.root) / task.reference, task.name)
    total: NDArray[np.float32] | None = None
    slopes, frames, unreadable = [], 0, []
    for movie in task.movies:
        part, number, used, why = _sum(task, gain, [movie])
        unreadable += why
        if not used:
            continue
        total = part if total is None else total + part
        frames += number
        slopes.append(_slope_in(movie, part, gain, shape, orientation, used_as))
    if total is None:
        return GainOutcome(evidence={"unreadable": unreadable})
    verdict = compare(total, gain, shape)
    first = odd = None
    shown_total, shown_verdict, number = total, verdict, len(slopes)
    if apart := odd_movies(used_as, slopes):
        shown_total, frames, number, _ = _sum(task, gain, apart)
        odd = shown_verdict = compare(shown_total, gain, shape)
    elif contradicts(orientation, used_as, verdict) and task.first:
        first = compare(_sum(task, gain, task.first)[0], gain, shape)
    doubt = find_doubt(orientation, used_as, verdict, slopes, first, odd)
    if doubt is None:
        evidence = _evidence(verdict, total, len(slopes), frames, unreadable)
        if used_as != "none" and verdict.kind != "flat":
            evidence["picture"] = _draw(task, total, gain, verdict, orientation, used_as, len(slopes))
        return GainOutcome(evidence=evidence)
    if doubt.scope == "newer":
        doubt = replace(doubt, movies=(*_since(task, gain, orientation, doubt), *doubt.movies))
    evidence = _evidence(shown_verdict, shown_total, number, frames, unreadable)
    way = (orientation, used_as) if doubt.use == "none" else (doubt.orientation, doubt.use)
    mode: Mode = "multiply" if way[1] == "none" else way[1]
    evidence["picture"] = _draw(task, shown_total, gain, shown_verdict, way[0], mode, number, doubtful=True)
    found = {**asdict(doubt), "rotate": doubt.orientation.rotate, "flip": doubt.orientation.flip, "looked": len(slopes)}
    del found["orientation"]
    return GainOutcome(evidence=evidence, doubt=found)


def _slope_in(
    movie: str,
    part: NDArray[np.float32],
    gain: NDArray[Any],
    shape: tuple[int, int],
    orientation: Orientation,
    use: Use,
) -> MovieSlope:
    """Return how one movie follows the reference; where it is not used, nothing is known of its orientation, and each is looked at."""
    if use != "none":
        match = slope_of(part, gain, shape, orientation)
        return MovieSlope(movie, match.slope, match.error)
    verdict = compare(part, gain, shape)
    if verdict.best is None:
        return MovieSlope(movie, 0.0, np.inf)
    return MovieSlope(movie, verdict.best.slope if verdict.kind == "clear" else 0.0, verdict.best.error)


def _since(task: GainTask, gain: NDArray[Any], orientation: Orientation, doubt: Doubt) -> Sequence[str]:
    """Return which of the movies between the last look and this one are like the newest: there is one at which it began, found by halving."""
    looked_for = orientation if doubt.use == "none" else doubt.orientation
    low, high = 0, len(task.between)
    while low < high:
        middle = (low + high) // 2
        movie = task.between[middle]
        part, _, used, _ = _sum(task, gain, [movie])
        match = slope_of(part, gain, _pair(task.shape), looked_for) if used else None
        shows = MovieSlope(movie, match.slope, match.error).shows if match else None
        if shows is (doubt.use != "none"):
            high = middle
        else:
            low = middle + 1
    return task.between[high:]


def _pair(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[0], shape[1]


def _usual_mode(task: GainTask) -> Mode:
    """RELION divides EER movies by a reference in MRC, and multiplies by one in .gain; all other movies are multiplied."""
    return "divide" if is_eer(task.movies) and Path(task.name).suffix.lower() in (".mrc", ".mrcs") else "multiply"


def _sum(task: GainTask, gain: NDArray[Any], movies: Sequence[str]) -> tuple[NDArray[np.float32], int, int, list[str]]:
    shape = _pair(task.shape)
    ratio = fitting_ratio((gain.shape[0], gain.shape[1]), shape) or fitting_ratio((gain.shape[1], gain.shape[0]), shape)
    assert ratio is not None
    return sum_of_movies([Path(task.root) / path for path in movies], shape, ratio)


def _draw(
    task: GainTask,
    total: NDArray[np.float32],
    gain: NDArray[np.float32],
    verdict: Verdict,
    orientation: Orientation,
    mode: Mode,
    movies: int,
    *,
    doubtful: bool = False,
) -> str:
    """Draw what the movies say; what contradicts a decision does not replace the picture of what made it."""
    picture = task.picture.replace("gain_check", "gain_doubt") if doubtful else task.picture
    drawn = gain_picture(total, gain, _pair(task.shape), verdict, orientation, mode, movies)
    save_picture(Path(task.root) / picture, drawn)
    return picture


def _evidence(
    verdict: Verdict, total: NDArray[np.float32], movies: int, frames: int, unreadable: list[str]
) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "margin": verdict.margin if np.isfinite(verdict.margin) else 0.0,
        "pattern": verdict.pattern,
        "matches": [
            [match.orientation.rotate, match.orientation.flip, match.slope, match.error] for match in verdict.matches
        ],
        "movies": movies,
        "frames": frames,
        "counts_per_pixel": float(total.mean(dtype=np.float64)),
        "unreadable": unreadable,
    }


def _plain(choice: Choice) -> dict[str, Any]:
    offers = [[orientation.rotate, orientation.flip, use] for orientation, use in choice.offers]
    offered = {"offers": offers, "any_way": choice.any_way} if choice.state == "asked" else {}
    return {
        **offered,
        "state": choice.state,
        "rotate": choice.orientation.rotate,
        "flip": choice.orientation.flip,
        "use": choice.use,
        "by": choice.by,
        "sentence": choice.sentence,
    }


def _prepare(task: GainTask, orientation: Orientation, use: Use) -> dict[str, Any]:
    """Write what jobs multiply by. Its name has its digest, so that a file that micrographs name never gets another content."""
    if use == "none":
        return {}
    root, output = Path(task.root), Path(task.root) / task.output
    output.parent.mkdir(parents=True, exist_ok=True)
    eer = is_eer(task.movies)
    temporary = output.with_name(f".{output.stem}-{os.getpid()}.tmp{output.suffix}")
    reciprocal = temporary.with_name(f".{output.stem}-{os.getpid()}-relion.tmp{output.suffix}")
    try:
        prepared = prepare_gain(
            root / task.reference,
            _pair(task.shape),
            flip=orientation.flip,
            rotate=orientation.rotate,
            divide=use == "divide",
            output=temporary,
            reciprocal=reciprocal if eer else None,
            name=task.name,
        )
        digest = file_hash(temporary)
        path = output.with_name(f"{output.stem}_{digest[:DIGITS]}{output.suffix}")
        if task.plain and _may_be(root / task.plain, digest):
            path = root / task.plain
        temporary.replace(path)
        if eer:
            reciprocal.replace(path.with_name(f"{path.stem}_relion{path.suffix}"))
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        reciprocal.unlink(missing_ok=True)
    found = {
        "gain": path.relative_to(root).as_posix(),
        "gain_sha256": digest,
        "defects": prepared.defects,
        "ratio": prepared.ratio,
        "warnings": list(prepared.warnings),
    }
    if eer:
        found["relion_gain"] = path.with_name(f"{path.stem}_relion{path.suffix}").relative_to(root).as_posix()
    return found


def _may_be(path: Path, digest: str) -> bool:
    return not path.exists() or file_hash(path) == digest
