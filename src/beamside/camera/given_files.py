"""The files that a session of movies is given for its camera: whether they can be used, and whether others would change what movies become."""

from __future__ import annotations

from pathlib import Path

from beamside.acquisition.gain import check_defects
from beamside.acquisition.kinds import MOVIE
from beamside.acquisition.transfer import hash_file
from beamside.errors import BeamsideError, InputError
from beamside.flow.settings import SessionSettings
from beamside.formats.image import read_image
from beamside.project.records import ProjectState

_WAIT_HINT = ", or add --gain-wait when it comes with the first movies"


def check_given(settings: SessionSettings) -> list[str]:
    """Return a warning when the session is to wait for its gain reference.

    Raises
    ------
    InputError
        when the gain reference or the defects cannot be used
    """
    awaited = _awaited_gain(settings)
    if not awaited:
        _check_file(settings.acquisition.gain, "gain reference", "--gain", _WAIT_HINT)
        _check_gain(settings.acquisition.gain)
    _check_file(settings.acquisition.defects, "defects file", "--defects")
    if settings.acquisition.defects:
        check_defects(settings.acquisition.defects)
    return [awaited] if awaited else []


def camera_has_changed(settings: SessionSettings, state: ProjectState) -> bool:
    """Tell whether `settings` name another gain reference or other defects than a project's session had, or another way of using them."""
    now, before = settings.to_json(), state.settings
    counting = (*MOVIE.decisive, *(["gain_check"] if now["gain"] else []))
    changed = {name for name in counting if name in before and before[name] != now[name]}
    if not changed:
        return False
    known = {record.get("reference_sha256") for record in state.findings.values() if record["state"] == "decided"}
    try:  # the same reference at another place changes nothing
        return changed != {"gain"} or hash_file(Path(settings.acquisition.gain)) not in known
    except OSError:
        return True


def _check_file(path: str, what: str, flag: str, hint: str = "") -> None:
    if path and not Path(path).is_file():
        wrong = "is not a file" if Path(path).exists() else "does not exist"
        more = hint if not Path(path).exists() else ""
        raise InputError(f"The {what} {path} {wrong}; check {flag}{more}.")


def _awaited_gain(settings: SessionSettings) -> str:
    """Return what to say when the session is to wait for a gain reference that is not there yet; "" when it is there, or not waited for."""
    gain = settings.acquisition.gain
    if not gain or not settings.acquisition.gain_wait or Path(gain).exists():
        return ""
    return f"The gain reference {gain} is not there yet: movies are taken in, and wait for it."


def _check_gain(path: str) -> None:
    """A file that is no image, or a movie given by mistake, is told at once; whether it fits is known when the first movie is there."""
    if not path:
        return
    try:
        read_image(path)
    except BeamsideError as error:
        raise InputError(f"The gain reference cannot be used: {error} Check --gain.") from error
