"""The facility's configuration, ``beamside.toml``, and where each setting of a session comes from.

The file describes microscopes and cameras, each section adding to the one around it::

    [stream]              # every session of this installation
    target = "/data/sessions"

    [stream.krios]        # a microscope
    voltage = 300

    [stream.krios.k3]     # a camera of it: --profile krios.k3
    paths = ["/mnt/k3/frames", "/mnt/k3/averages"]
    pixel_size = 1.08

Command line goes before profile, profile before defaults; every resolved value remembers its origin.
This module knows no parameter: which keys exist is told to it by a `Vocabulary`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamside.errors import ConfigError

FILE_NAME = "beamside.toml"
ENVIRONMENT_VARIABLE = "BEAMSIDE_CONFIG"
ROOT_SECTION = "stream"
COMMAND_LINE = "command line"
DEFAULT = "default"

PROFILE_KEYS = ("paths", "pattern")
"""Keys that only a profile has: the camera's roots, and which files below them are exposures."""


@dataclass(frozen=True)
class Vocabulary:
    """Which keys may stand in a section.

    Attributes
    ----------
    names : canonical name by accepted key, the canonical names themselves included
    paths : canonical names whose values are paths; relative ones are taken from the directory of the file
    of_jobs : canonical names that may have a job's label and a dot before them
    """

    names: Mapping[str, str]
    paths: frozenset[str] = frozenset()
    of_jobs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: Iterable[str], paths: Iterable[str] = ()) -> Vocabulary:
        """Make a vocabulary of names without synonyms."""
        return cls({name: name for name in names}, frozenset(paths))


@dataclass(frozen=True)
class Setting:
    """A value and where it came from: "command line", "beamside.toml [stream.krios.k3]", "default"."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Facility:
    """A facility file that was read: for each section ("stream", "stream.krios", ...) its values by canonical name.

    `path` is None when there is no file: an installation without one works, with defaults only.
    """

    path: Path | None = None
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def profiles(self) -> list[str]:
        """Return the names that ``--profile`` accepts, in the order of the file."""
        prefix = ROOT_SECTION + "."
        return [name.removeprefix(prefix) for name in self.sections if name.startswith(prefix)]

    def profile(self, name: str = "") -> dict[str, Setting]:
        """Return the settings of profile `name` ("krios.k3"): camera over microscope over ``[stream]``.

        With an empty name only ``[stream]`` counts.

        Raises
        ------
        ConfigError
            when there is no such profile; the message lists those that are there
        """
        section = f"{ROOT_SECTION}.{name}" if name else ROOT_SECTION
        if name and section not in self.sections:
            raise ConfigError(self._unknown_profile(name))
        parts = section.split(".")
        settings: dict[str, Setting] = {}
        for depth in range(1, len(parts) + 1):
            part = ".".join(parts[:depth])
            origin = f"{self.path.name if self.path else FILE_NAME} [{part}]"
            settings |= {key: Setting(value, origin) for key, value in self.sections.get(part, {}).items()}
        return settings

    def _unknown_profile(self, name: str) -> str:
        if self.path is None:
            return (
                f"there is no profile {name!r} because no {FILE_NAME} was found: write one with 'beamside init', "
                f"or point to yours with --config or ${ENVIRONMENT_VARIABLE}"
            )
        known = self.profiles()
        if not known:
            return f"{self.path} has no profiles, so {name!r} cannot be used: add a section [{ROOT_SECTION}.{name}]"
        return f"{self.path} has no profile {name!r}{suggestion(name, known)} (its profiles: {', '.join(known)})"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the name in `known` that `name` was most likely meant to be, or "" when none is near."""
    candidates = {candidate.casefold().replace("-", "_"): candidate for candidate in known}
    wanted = name.casefold().replace("-", "_")
    matches = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.6)
    if not matches and len(wanted) >= 3:
        # "pixel" is far from "pixel_size" by edit distance, but people mean it
        matches = [candidate for candidate in sorted(candidates, key=len) if wanted in candidate.split("_")]
    return candidates[matches[0]] if matches else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest of `known`, or ""."""
    match = nearest(name, known)
    return f"; did you mean {match!r}?" if match else ""


def find_facility_file(explicit: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the facility file to use: `explicit`, $BEAMSIDE_CONFIG, ./beamside.toml, ~/.config/beamside/beamside.toml.

    Raises
    ------
    ConfigError
        when a file that was asked for by name does not exist
    """
    for asked, where in ((explicit, "--config"), (os.environ.get(ENVIRONMENT_VARIABLE), f"${ENVIRONMENT_VARIABLE}")):
        if asked:
            path = expanded(asked)
            if path.is_dir():
                inside = path / FILE_NAME
                hint = f"give the file, {inside}" if inside.is_file() else "give a file, as 'beamside init' writes one"
                raise ConfigError(f"the configuration {path} ({where}) is a directory: {hint}")
            if not path.is_file():
                raise ConfigError(f"the configuration {path} ({where}) does not exist: correct the path")
            return path.absolute()
    return next((place.absolute() for place in _usual_places() if _is_readable_file(place)), None)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading ``~`` replaced by the home directory.

    Raises
    ------
    ConfigError
        when there is no such home
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"the home directory in {path} is not known: write the path in full") from error


def _usual_places() -> Iterator[Path]:
    yield Path(FILE_NAME)
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    with suppress(ConfigError):  # an account without a home has no file there
        yield expanded(base) / "beamside" / FILE_NAME


def _is_readable_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a home that may not be entered has no file for us
        return False


def load_facility(vocabulary: Vocabulary, path: str | os.PathLike[str] | None = None) -> Facility:
    """Read and check the facility's file.

    Parameters
    ----------
    vocabulary : the keys that sections may have, besides ``paths`` and ``pattern``
    path : the file; None looks in the usual places, and gives an empty facility when there is none

    Raises
    ------
    ConfigError
        for a missing or unreadable file, TOML errors, unknown sections or keys (with the nearest right name)
    """
    found = find_facility_file(path)
    if found is None:
        return Facility()
    document = _read_toml(found)
    for name, value in document.items():
        if name != ROOT_SECTION:
            raise ConfigError(
                f"{found}: unknown {'section' if isinstance(value, dict) else 'key'} {name!r} at the top of the file"
                f"{suggestion(name, [ROOT_SECTION])}: settings belong into [{ROOT_SECTION}], [{ROOT_SECTION}.<microscope>] "
                f"or [{ROOT_SECTION}.<microscope>.<camera>]"
            )
    root = document.get(ROOT_SECTION, {})
    if not isinstance(root, dict):
        raise ConfigError(f"{found}: {ROOT_SECTION!r} must be a section: write [{ROOT_SECTION}] on a line of its own")
    sections: dict[str, dict[str, Any]] = {}
    _collect(found, ROOT_SECTION, root, vocabulary, sections)
    return Facility(found, sections)


def resolve(
    given: Mapping[str, Any], profile: Mapping[str, Setting], defaults: Mapping[str, Any]
) -> dict[str, Setting]:
    """Return for each name its value and origin: command line (`given`, None = not given) > `profile` > `defaults`."""
    settings = {name: Setting(value, DEFAULT) for name, value in defaults.items()}
    settings |= profile
    settings |= {name: Setting(value, COMMAND_LINE) for name, value in given.items() if value is not None}
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(
            path.read_bytes().decode("utf-8-sig")
        )  # editors of Windows begin a file with a byte-order mark
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}: correct that line") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def _collect(
    path: Path, section: str, table: Mapping[str, Any], vocabulary: Vocabulary, sections: dict[str, dict[str, Any]]
) -> None:
    """Put the checked values of `table` and of the tables in it into `sections`."""
    depth = section.count(".")
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    sections[section] = values
    for key, value in table.items():
        if isinstance(value, dict):
            _check_subsection(path, section, key, depth, vocabulary)
            _collect(path, f"{section}.{key}", value, vocabulary, sections)
            continue
        name = _canonical(path, section, key, vocabulary)
        if name in values:
            raise ConfigError(
                f"{path} [{section}]: {key!r} and {origin[name]!r} are the same setting: keep one of them"
            )
        origin[name] = key
        values[name] = _located(path, section, key, name, value, vocabulary)


def _check_subsection(path: Path, section: str, key: str, depth: int, vocabulary: Vocabulary) -> None:
    if key in vocabulary.names or key in PROFILE_KEYS:
        raise ConfigError(
            f"{path} [{section}]: {key!r} is a setting and cannot be a section: write {key} = <value>, or [[{section}.{key}]] for one of several "
            "tables"
        )
    if not key or "." in key:  # in quotes: one with a dot would be taken for a camera of a microscope
        raise ConfigError(
            f"{path} [{section}]: the name {key!r} of a section {'has a dot' if key else 'is empty'}: give it another name"
        )
    if depth == 2:
        raise ConfigError(
            f"{path} [{section}.{key}]: sections go no deeper than [{ROOT_SECTION}.<microscope>.<camera>]: "
            "give this camera a name of its own"
        )


def _canonical(path: Path, section: str, key: str, vocabulary: Vocabulary) -> str:
    spelled = key.replace("-", "_")
    if spelled in PROFILE_KEYS:
        return spelled
    if spelled in vocabulary.names:
        return vocabulary.names[spelled]
    label, dot, own = spelled.rpartition(".")
    if dot and vocabulary.names.get(own) in vocabulary.of_jobs:
        return f"{label}.{vocabulary.names[own]}"
    hint = suggestion(key, [*PROFILE_KEYS, *vocabulary.names])
    raise ConfigError(
        f"{path} [{section}]: unknown key {key!r}{hint or '; the names of all settings: beamside session start --help-all'}"
    )


def _located(path: Path, section: str, key: str, name: str, value: Any, vocabulary: Vocabulary) -> Any:
    """Return `value`, with relative paths taken from the directory of the file, ``paths`` and ``pattern`` as tuples."""
    if name in PROFILE_KEYS:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not value or not all(isinstance(entry, str) and entry for entry in value):
            raise ConfigError(f'{path} [{section}]: {key} must be text or a list of texts: {key} = ["first", "second"]')
    if name == "paths" or name in vocabulary.paths:
        if isinstance(value, list):
            return tuple(_absolute(path, entry) if isinstance(entry, str) else entry for entry in value)
        return _absolute(path, value) if isinstance(value, str) and value else value
    return tuple(value) if isinstance(value, list) else value


def _absolute(path: Path, value: str) -> str:
    return str(path.parent / expanded(value))
