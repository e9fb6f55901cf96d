"""What a session can take in: each kind of source says in one place what its files are, and what is done with them.

A package brings a kind as an entry point in the group ``beamside.kinds``: its name there is the kind's, its value a `SourceKind`. What only a session
needs is named as "module:function" and loaded by it, so that taking in files knows nothing of processing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from beamside.acquisition.bystanders import (
    Kind,
    among_micrographs,
    among_movies,
    sentence_among_micrographs,
    sentence_among_movies,
)
from beamside.acquisition.nothing_found import FORMATS, MOVIE_SUFFIXES
from beamside.acquisition.readiness import inspect_file
from beamside.errors import ConfigError
from beamside.formats.image import ImageInfo


def _none_passed_over(path: str, frames: int, asked: str) -> Kind | None:
    return None


def _plain_sentence(kind: Kind, path: str) -> str:
    return f"{path} is {kind.words}: it is not used."


@dataclass(frozen=True)
class WrongKind:
    """What is said when all files that come are of another kind of source.

    Attributes
    ----------
    holds : what such a file has
    missing : what did not come
    workflow : the workflow that takes such files in
    """

    holds: str
    missing: str
    workflow: str


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: how its files are recognised, checked and made ready.

    Attributes
    ----------
    name : that of the kind of item which the workflow's source gives
    endings : of its files, in lower case
    formats : the same in words, for sentences
    inspect : checks that a file is structurally complete and says what it holds; raises NotReadyError while something is missing, and
        CorruptFileError or InputError when waiting does not help; see `without_pixels` for files that are no images
    role : under which the file is an output of the item
    many : several of them, in words; the name with an "s" when it is not given
    in_parts : whether a file has frames that a camera writes one after the other, so that their number has to be confirmed
    passes_over : what a complete file is when it is not of this kind, from its path, its frames and what the patterns ask for
    tells : what is said of such a file
    wrong : what is said when only such files come
    prepare : makes a file ready for processing, as "module:function"; "" when it is used as it is
    compare : compares its metadata with the settings, as "module:function"; "" when nothing is compared
    check : makes what settles something about the source before its items may flow, as "module:function"; "" when they flow at once
    account : says what the check has found, for status and report, as "module:function"
    commands : what a session that takes such files in can be told besides what every one can, each as "module:class"
    given : looks at the files that settings name for this source, as "module:function"
    decisive : settings of taking in that change what is made of the items
    changed : tells whether other values of these settings do change it, as "module:function"; "" when they always do
    fault : the value of an item in which its preparation says what does not fit; it is prepared again when that is asked for
    told_apart : values of an item that, with the content of its file, say whether it is another one; their order holds for ever
    """

    name: str
    endings: tuple[str, ...]
    formats: str
    inspect: Callable[[str], ImageInfo]
    role: str
    many: str = ""
    in_parts: bool = False
    passes_over: Callable[[str, int, str], Kind | None] = field(default=_none_passed_over)
    tells: Callable[[Kind, str], str] = field(default=_plain_sentence)
    wrong: WrongKind | None = None
    prepare: str = ""
    compare: str = ""
    check: str = ""
    account: str = ""
    commands: tuple[str, ...] = ()
    given: str = ""
    decisive: tuple[str, ...] = ()
    changed: str = ""
    fault: str = ""
    told_apart: tuple[str, ...] = ()

    def count(self, number: int) -> str:
        """Return so many of them, in words: "1 movie", "3 movies"."""
        return f"1 {self.name}" if number == 1 else f"{number} {self.plural}"

    @property
    def plural(self) -> str:
        """Several of them, in words."""
        return self.many or f"{self.name}s"


def without_pixels(metadata: Mapping[str, float | str] | None = None) -> ImageInfo:
    """Return what is known of a file that is no image: it is one part, and has no pixels."""
    return ImageInfo(1, (0, 0), np.dtype(np.uint8), "none", dict(metadata or {}))


MOVIE = SourceKind(
    "movie",
    MOVIE_SUFFIXES,
    FORMATS,
    inspect_file,
    role="movie",
    in_parts=True,
    passes_over=among_movies,
    tells=sentence_among_movies,
    wrong=WrongKind("a single image", "no movie", "micrographs"),
    prepare="beamside.camera.preparing:prepare_movies",
    compare="beamside.camera.comparing:movie_remarks",
    check="beamside.camera.gain.check:GainCheck",
    account="beamside.camera.gain.account:accounts",
    commands=("beamside.camera.gain.command:Gain",),
    given="beamside.camera.given_files:check_given",
    decisive=("gain", "gain_rotate", "gain_flip", "gain_mode", "defects"),
    changed="beamside.camera.given_files:camera_has_changed",
    fault="gain_error",
    told_apart=("gain_sha256", "gain_error", "defects_sha256"),
)

MICROGRAPH = SourceKind(
    "micrograph",
    MOVIE_SUFFIXES,
    FORMATS,
    inspect_file,
    role="micrograph",
    passes_over=among_micrographs,
    tells=sentence_among_micrographs,
    wrong=WrongKind("several images", "no micrograph", "movies"),
    prepare="beamside.camera.preparing:prepare_micrographs",
    compare="beamside.camera.comparing:micrograph_remarks",
)

BUILT_IN = {kind.name: kind for kind in (MOVIE, MICROGRAPH)}


def source_kind(name: str) -> SourceKind:
    """Return the kind of source of this name.

    Raises
    ------
    ConfigError
        when there is none, or the package that has it cannot be loaded
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    points = installed()
    if name not in points:
        known = ", ".join([*BUILT_IN, *points])
        raise ConfigError(
            f"No kind of source is called {name!r}, so nothing can be taken in for it: there are {known}; "
            "is the package that provides it installed here?"
        )
    point = points[name]
    owner = f"The kind of source {name!r} ({point.value})"
    try:
        kind: Any = point.load()
    except Exception as error:  # a package of somebody else may do anything when it is imported
        raise ConfigError(f"{owner} cannot be loaded: {type(error).__name__}: {error}.") from error
    if not isinstance(kind, SourceKind):
        raise ConfigError(f"{owner} is not a SourceKind; name the object in the package's entry point.")
    if kind.name != name:
        raise ConfigError(f"{owner} calls itself {kind.name!r}; give both the same name.")
    return kind


@cache
def installed() -> dict[str, EntryPoint]:
    """Return the kinds of installed packages by name."""
    return {point.name: point for point in entry_points(group="beamside.kinds")}
