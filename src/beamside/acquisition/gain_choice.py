"""Deciding how a gain reference is used: what a person has said, what the movies say, and what is asked when these do not settle it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from beamside.acquisition.settings import AcquisitionSettings, GainFlip, GainMode, GainRotation
from beamside.formats.orientation import ORIENTATIONS, Flip, Orientation, Rotation

if TYPE_CHECKING:  # the session decides nothing by itself, and does not load the numerics
    from beamside.imaging.gain.orientation import Match, Mode, Verdict

MOST_MOVIES = 16
"""When so many movies have not settled it, a person is asked."""

SHADED = 0.02
"""A reference without a pattern of pixels but with shading above this may still be the wrong way round."""

Use = Literal["multiply", "divide", "none"]


@dataclass(frozen=True)
class Asked:
    """What a person has said about the reference; "auto" where nothing was."""

    rotate: GainRotation = "auto"
    flip: GainFlip = "auto"
    mode: GainMode = "auto"
    check: bool = True

    @classmethod
    def of(cls, settings: AcquisitionSettings) -> Asked:
        """Return what the settings say."""
        return cls(settings.gain_rotate, settings.gain_flip, settings.gain_mode, settings.gain_check)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Asked:
        """Make it from its JSON form, a dictionary of its fields."""
        return cls(**data)

    @property
    def orientations(self) -> tuple[Orientation, ...]:
        """The orientations that agree with it, the reference as it lies in its file first."""
        rotations = (0, 90, 180, 270) if self.rotate == "auto" else (self.rotate,)
        flips = ("none", "up-down", "left-right") if self.flip == "auto" else (self.flip,)
        found = {
            Orientation(cast(Rotation, rotate), cast(Flip, flip)).canonical() for rotate in rotations for flip in flips
        }
        return tuple(one for one in ORIENTATIONS if one in found)

    @property
    def anything(self) -> bool:
        """True when something was said."""
        return (self.rotate, self.flip, self.mode) != ("auto", "auto", "auto")

    @property
    def everything(self) -> bool:
        """True when nothing is left open but what the reference does."""
        return len(self.orientations) == 1

    def allows(self, match: Match) -> bool:
        """Return True when a match agrees with it."""
        return match.orientation in self.orientations and self.mode in ("auto", match.mode)


@dataclass(frozen=True)
class Choice:
    """How the reference is used, or why that is not known.

    Attributes
    ----------
    state : "decided", "asked" (a person has to say), or "open" (more movies are needed)
    orientation, use : when decided
    by : what decided: "movies", "settings" (said, and not contradicted), or "person" (said when asked)
    sentence : what a person should know
    offers : the ways that a question offers; where it offers not to use the reference, the orientation means nothing
    any_way : whether a person may also say another way, known from elsewhere
    """

    state: Literal["decided", "asked", "open"]
    sentence: str
    orientation: Orientation = ORIENTATIONS[0]
    use: Use = "multiply"
    by: Literal["movies", "settings", "person"] = "movies"
    offers: tuple[tuple[Orientation, Use], ...] = ()
    any_way: bool = False


def words(orientation: Orientation, use: Use) -> str:
    """Return how a reference is used, in words."""
    if use == "none":
        return "not used"
    return f"{orientation}; frames are {'multiplied' if use == 'multiply' else 'divided'} by it"


def as_said(asked: Asked, default: Mode) -> Choice:
    """Return the choice without looking at movies: what was said, and where nothing was, as it lies in its file and the usual mode."""
    orientation = asked.orientations[0]
    use = default if asked.mode == "auto" else asked.mode
    return Choice(
        "decided",
        f"The gain reference is used as the settings say, and not compared with the movies: {words(orientation, use)}.",
        orientation,
        use,
        "settings",
    )


def choose(
    verdict: Verdict, asked: Asked, *, default: Mode, movies: int, last: bool, reference: str, command: str
) -> Choice:
    """Decide from what the movies say and what a person has said.

    Parameters
    ----------
    verdict : of all movies so far
    asked : what was said
    default : the mode where nothing tells it
    movies : how many were compared
    last : there will be no more movies than these
    reference : name of the reference
    command : what a person types before ``--rotate ...`` to answer
    """
    seen = f"{movies} movie{'' if movies == 1 else 's'}"
    if verdict.kind == "unsure":
        return _unsure(asked, default, last or movies >= MOST_MOVIES, seen, reference, command)
    return {
        "flat": lambda: _flat(verdict, asked, default, reference, command),
        "clear": lambda: _clear(verdict, asked, seen, reference, command),
        "alike": lambda: _alike(verdict, asked, seen, reference, command),
        "absent": lambda: _absent(verdict, seen, reference, command, asked, default),
    }[verdict.kind]()


def _unsure(asked: Asked, default: Mode, last: bool, seen: str, reference: str, command: str) -> Choice:
    if not last:
        return Choice(
            "open",
            f"The movies do not show the orientation of the gain reference {reference} yet ({seen}); processing begins when more have been taken in.",
        )
    if asked.everything:
        said = as_said(asked, default)
        return Choice(
            "decided",
            f"The movies do not show whether the gain reference {reference} fits ({seen}); it is used as the settings say: "
            f"{words(said.orientation, said.use)}.",
            said.orientation,
            said.use,
            "settings",
        )
    problem = f"The movies do not show the orientation of the gain reference {reference} ({seen}). They wait."
    return _question(problem, command, [], asked, default)


def _clear(verdict: Verdict, asked: Asked, seen: str, reference: str, command: str) -> Choice:
    best = verdict.matches[0]
    evidence = f"{seen}, slope {best.slope:+.2f} ± {best.error:.3f}, {verdict.margin:.0f} standard deviations from the next orientation"
    if asked.allows(best):
        how = "is used as the settings say, and the movies agree" if asked.everything else "is used as the movies show"
        return Choice(
            "decided",
            f"The gain reference {reference} {how}: {words(best.orientation, best.mode)} ({evidence}).",
            best.orientation,
            best.mode,
        )
    said = asked.orientations[0]
    problem = (
        f"The gain reference {reference} does not fit the movies in the way that the settings say ({_said(asked)}). The movies say: "
        f"{words(best.orientation, best.mode)} ({evidence}). They wait."
    )
    return _question(problem, command, [(best.orientation, best.mode)], asked, best.mode, said)


def _alike(verdict: Verdict, asked: Asked, seen: str, reference: str, command: str) -> Choice:
    equals = [match for match in verdict.equals if asked.allows(match)]
    if len(equals) == 1:
        only = equals[0]
        return Choice(
            "decided",
            f"The gain reference {reference} is used as the settings say, and the movies agree, but not with that alone: "
            f"{words(only.orientation, only.mode)} ({seen}, slope {only.slope:+.2f} ± {only.error:.3f}).",
            only.orientation,
            only.mode,
            "settings",
        )
    fitting = equals or list(verdict.equals)
    listed = " or ".join(words(match.orientation, match.mode) for match in fitting)
    problem = (
        "looks almost the same in several orientations, and the movies fit each of them"
        if equals
        else f"does not fit the movies in the way that the settings say ({_said(asked)})"
    )
    return _question(
        f"The gain reference {reference} {problem} ({seen}): {listed}. The movies wait.",
        command,
        [(match.orientation, match.mode) for match in fitting],
        asked,
        fitting[0].mode,
    )


def _absent(verdict: Verdict, seen: str, reference: str, command: str, asked: Asked, default: Mode) -> Choice:
    best = verdict.matches[0]
    slope = f"{best.slope:+.2f} ± {best.error:.3f}"
    if best.sigmas > 8:
        problem = (
            f"shows only in part in the movies ({seen}; in the best orientation, {best.orientation}, the slope is {slope}, "
            "and ±1 is right): it may be old or noisy, or the movies corrected already"
        )
    else:
        problem = (
            f"does not show in the movies in any orientation ({seen}, largest slope {slope}, and ±1 is right): "
            "they are corrected already, or it is of another camera or mode"
        )
    return _question(
        f"The gain reference {reference} {problem}. The movies wait.", command, [], asked, default, none=True
    )


def _flat(verdict: Verdict, asked: Asked, default: Mode, reference: str, command: str) -> Choice:
    if verdict.shading > SHADED and not asked.everything:
        problem = (
            f"The gain reference {reference} has shading and no pattern of pixels, so the movies cannot tell how it lies. "
            "They wait."
        )
        return _question(problem, command, [], asked, default)
    said = as_said(asked, default)
    return Choice(
        "decided",
        f"The gain reference {reference} is the same everywhere to {verdict.pattern:.2%}, so that its orientation changes nothing: "
        f"{words(said.orientation, said.use)}.",
        said.orientation,
        said.use,
        "settings",
    )


def _said(asked: Asked) -> str:
    parts = []
    if asked.rotate != "auto":
        parts.append(f"--gain-rotate {asked.rotate}")
    if asked.flip != "auto":
        parts.append(f"--gain-flip {asked.flip}")
    if asked.mode != "auto":
        parts.append(f"--gain-mode {asked.mode}")
    return " ".join(parts) or "nothing was given"


def answer_options(orientation: Orientation, mode: Mode) -> str:
    """Return the options of the answer that says this."""
    return f"--rotate {orientation.rotate} --flip {orientation.flip} --mode {mode}"


def _question(
    problem: str,
    command: str,
    fitting: list[tuple[Orientation, Mode]],
    asked: Asked,
    default: Mode,
    said: Orientation | None = None,
    *,
    none: bool = False,
) -> Choice:
    """Return what is asked: the problem, with the answers that are offered and what to type for each."""
    lines, offers = [], list[tuple[Orientation, Use]](fitting)
    if none:
        lines.append(f"To process them without it, type: {command} --none")
        offers.append((ORIENTATIONS[0], "none"))
    options = [f"{command} {answer_options(orientation, mode)}" for orientation, mode in fitting]
    if options:
        lines.append(
            f"{'To use it so' if len(options) == 1 else 'To use it in one of these ways'}, type: {' or '.join(options)}"
        )
    if not fitting or said is not None:
        orientation = said or asked.orientations[0]
        mode = default if asked.mode == "auto" else asked.mode
        how = (
            "To use it as the settings say nevertheless"
            if asked.anything
            else "To use it in the orientation that you know"
        )
        lines.append(f"{how}, type: {command} {answer_options(orientation, mode)}")
        offers.append((orientation, mode))
    return Choice("asked", f"{problem} {'. '.join(lines)}", offers=tuple(offers), any_way=not fitting)
