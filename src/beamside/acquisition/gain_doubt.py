"""A decision about the gain reference that later movies contradict: what they say, how many movies that concerns, and what a person is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from beamside.acquisition.gain_choice import Use, words
from beamside.formats.orientation import Orientation

if TYPE_CHECKING:  # the session decides nothing by itself, and does not load the numerics
    from beamside.imaging.gain.orientation import Verdict

TOLD_ERROR = 0.1
"""One movie says by itself whether the reference's pattern shows in it when the error of its slope is below this."""

SHOWS, SHOWS_NOT = 0.6, 0.3
"""Slopes in one movie from which the pattern shows, and up to which, with twice the error, it does not. What is between says nothing."""

SHOWN_NAMES = 3

Scope = Literal["all", "newer", "some"]


@dataclass(frozen=True)
class MovieSlope:
    """How one movie follows the reference in the orientation that is used: slope and standard error. -1 multiplies, +1 divides, 0 shows nothing."""

    movie: str
    slope: float
    error: float

    @property
    def shows(self) -> bool | None:
        """Return whether the pattern shows; None when this movie cannot tell."""
        if self.error <= TOLD_ERROR and abs(self.slope) + 2 * self.error <= SHOWS_NOT:
            return False
        return True if self.error <= TOLD_ERROR and abs(self.slope) >= SHOWS else None


@dataclass(frozen=True)
class Doubt:
    """What contradicts the decision.

    Attributes
    ----------
    orientation, use : how the movies concerned should be processed
    scope : which these are: "all" of the session; "newer", those looked at and all later ones; "some" of those looked at
    movies : the movies concerned among those that were looked at
    shown : what the movies show, in words, with numbers
    """

    orientation: Orientation
    use: Use
    scope: Scope
    movies: tuple[str, ...]
    shown: str


def find_doubt(
    orientation: Orientation,
    use: Use,
    newest: Verdict,
    slopes: Sequence[MovieSlope],
    first: Verdict | None = None,
    odd: Verdict | None = None,
) -> Doubt | None:
    """Return what the newest movies say against how the reference is used, or None when they do not.

    Parameters
    ----------
    orientation, use : how it is used
    newest : verdict of all movies that are looked at now
    slopes : of each of them, in `orientation`
    first : verdict of the session's first movies, when `newest` contradicts the decision: whether it was wrong from the beginning
    odd : verdict of `odd_movies` alone, when these are some of the newest
    """
    apart = odd_movies(use, slopes)
    if apart and odd is not None:
        shown = _slope_words(odd) if odd.best is not None else f"{len(apart)} of {len(slopes)} movies"
        way = _other_way(orientation, use, odd)
        if way is None and use != "none":
            way = orientation, "none"
        return None if way is None else Doubt(*way, "some", apart, shown)
    movies = tuple(slope.movie for slope in slopes)
    way = _other_way(orientation, use, newest)
    if way is not None:
        same = first is not None and _other_way(orientation, use, first) == way
        return Doubt(*way, "all" if same else "newer", movies, _slope_words(newest))
    if use != "none" and newest.kind == "absent":
        same = first is not None and first.kind == "absent"
        return Doubt(orientation, "none", "all" if same else "newer", movies, _slope_words(newest))
    return None


def _other_way(orientation: Orientation, use: Use, verdict: Verdict) -> tuple[Orientation, Use] | None:
    """Return the way of use that a verdict is clear about, when it is another one."""
    best = verdict.best
    if best is None or verdict.kind != "clear" or (best.orientation, best.mode) == (orientation, use):
        return None
    return best.orientation, best.mode


def odd_movies(use: Use, slopes: Sequence[MovieSlope]) -> tuple[str, ...]:
    """Return the movies that are not as the others: corrected already, or not corrected although the reference is not used. () when all are so."""
    odd = tuple(slope.movie for slope in slopes if slope.shows is (use == "none"))
    return odd if len(odd) < len(slopes) else ()


def contradicts(orientation: Orientation, use: Use, newest: Verdict) -> bool:
    """Return whether the newest movies together contradict the decision, so that the first ones are worth another look."""
    best = newest.best
    if best is None:
        return False
    if newest.kind == "clear":
        return (best.orientation, best.mode) != (orientation, use)
    return newest.kind == "absent" and use != "none"


def _slope_words(verdict: Verdict) -> str:
    best = verdict.matches[0]
    return f"slope {best.slope:+.2f} ± {best.error:.3f}"


def doubt_sentence(
    doubt: Doubt, orientation: Orientation, use: Use, *, reference: str, processed: int, looked: int, command: str
) -> str:
    """Return the question: what contradicts, what was done so far, and what each answer costs.

    Parameters
    ----------
    doubt : what contradicts
    orientation, use : how the reference is used so far
    reference : its name
    processed : how many movies were given on so far
    looked : how many were looked at now
    command : what a person types before ``--keep`` or ``--redo``
    """
    number = len(doubt.movies)
    so_far = "processed without it" if use == "none" else f"corrected with it ({words(orientation, use)})"
    those = {
        "all": f"the {looked} newest movies, like the first ones,",
        "newer": f"the {looked} newest movies ({_named(doubt.movies)})",
        "some": f"{number} of the {looked} newest movies ({_named(doubt.movies)})",
    }[doubt.scope]
    if doubt.use == "none":
        are = "it is corrected already, or comes" if number == 1 else "they are corrected already, or come"
        what = f"The gain reference {reference} does not show in {those} ({doubt.shown}): {are} from another camera or mode."
        redo = "without it"
    elif use == "none":
        are = "it is" if number == 1 else "they are"
        what = (
            f"The pattern of the gain reference {reference} shows in {those} ({doubt.shown}): {are} not corrected yet."
        )
        redo = f"with it ({words(doubt.orientation, doubt.use)})"
    else:
        what = f"The gain reference {reference} is not used as {those} say: {words(doubt.orientation, doubt.use)} ({doubt.shown})."
        redo = "as said there"
    again = {
        "all": f"all {processed} movies",
        "newer": f"{'this movie' if number == 1 else f'the {number} movies from {_short(doubt.movies[0])} on'}, and those that follow,",
        "some": f"{'this one' if number == 1 else f'these {number}'}, and later ones that are found so,",
    }[doubt.scope]
    return (
        f"{what} So far {processed} movies were {so_far}, and movies go on to be until this is answered. "
        f"To leave it so, type: {command} --keep. To process {again} {redo}, type: {command} --redo"
    )


def changed_sentence(reference: str, orientation: Orientation, use: Use, *, processed: int, command: str) -> str:
    """Return the question about a reference that has another content than the one in use."""
    so_far = (
        "processed without it" if use == "none" else f"corrected with the one of before ({words(orientation, use)})"
    )
    return (
        f"The gain reference {reference} has changed since it was taken into the project. So far {processed} movies were {so_far}, and movies go "
        f"on to be until this is answered. To leave it so, type: {command} --keep. To compare the new one with the movies and process all "
        f"{processed} movies again with it, type: {command} --redo"
    )


def _named(movies: Sequence[str]) -> str:
    if len(movies) <= SHOWN_NAMES:
        return ", ".join(_short(movie) for movie in movies)
    return f"{_short(movies[0])} to {_short(movies[-1])}"


def _short(movie: str) -> str:
    return movie.rsplit("/", 1)[-1]
