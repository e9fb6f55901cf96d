"""Finding files in the source folders by looking again and again.

Nothing but ``scandir`` and ``stat`` is used: notifications (inotify) do not see what other machines write to a network file system.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beamside.acquisition.bystanders import is_system_folder
from beamside.acquisition.listing import FolderNames, Listing, is_folder
from beamside.acquisition.nothing_found import FORMATS, MOVIE_SUFFIXES, Pattern, nearest_folder, what_is_there
from beamside.acquisition.remarks import Trouble
from beamside.errors import ConfigError

_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_EVERYTHING = ("**", "*")
_PROJECT_MARK = ".beamside"


@dataclass(frozen=True)
class Sighting:
    """A file as it was seen: absolute path, bytes, and modification time in ns (the source machine's clock; only compared with itself)."""

    path: str
    size: int
    mtime_ns: int


@dataclass
class ScanResult:
    """One look at the source.

    Attributes
    ----------
    sightings : files of the kind that match and are not known yet
    matched : number of files of the kind that match, known ones included
    sidecars : paths of files with a sidecar's ending in the folders walked
    standing : what could not be looked at
    complete : whether every folder could be read; only then is an absent file really gone
    system_folders : folders of operating and storage systems that were passed over
    temporary : files with a name that says that they are still being written, or hidden, which would match without that
    hidden_folders : other hidden folders that were passed over
    """

    sightings: list[Sighting] = field(default_factory=list)
    matched: int = 0
    sidecars: list[str] = field(default_factory=list)
    standing: list[Trouble] = field(default_factory=list)
    complete: bool = True
    system_folders: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    hidden_folders: list[str] = field(default_factory=list)


class Scanner:
    """Looks for files that match patterns.

    Parameters
    ----------
    patterns : paths with ``*``, ``?``, ``[...]``, ``{a,b}`` and ``**`` (any depth); a folder means everything in it
    sidecar_suffixes : endings of the files that belong to movies
    exclude : files that are never taken in, such as the gain reference
    endings, formats : of the files that are taken in, and the same in words

    Raises
    ------
    ConfigError
        When there is no pattern, or one is empty.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        sidecar_suffixes: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        endings: tuple[str, ...] = MOVIE_SUFFIXES,
        formats: str = FORMATS,
    ) -> None:
        if not patterns or not all(pattern.strip() for pattern in patterns):
            raise ConfigError(
                "No data pattern is given: say where the files appear with --data '/camera/run1/**/*_fractions.tiff'."
            )
        self._given, self._endings, self._formats = tuple(patterns), endings, formats
        self._known: dict[str, Pattern] = {}
        self._seen_roots: set[str] = set()
        self._names: dict[str, FolderNames] = {}
        self._understand()
        self._sidecars = tuple(suffix.lower() for suffix in sidecar_suffixes)
        self._exclude = {os.path.realpath(path) for path in exclude if path}
        self._exclude_names = {os.path.basename(path) for path in self._exclude}

    def _understand(self) -> None:
        """Make of what was given fixed folders and parts; anew at each scan, as what is a folder may be made, or mounted, later.

        What was a folder once stays one: when it cannot be found any more it is away, and not a part of a name.
        """
        self._patterns = []
        for given in self._given:
            for text in [given] if given in self._known else expand_braces(given):
                now, before = _split(text, given), self._known.get(text)
                self._known[text] = before if before and len(before.root) > len(now.root) else now
                self._patterns.append(self._known[text])
        self._roots = {pattern.root for pattern in self._patterns}

    @property
    def patterns(self) -> list[Pattern]:
        """The patterns, those with braces as what they stand for."""
        return list(self._patterns)

    @property
    def asked(self) -> str:
        """What the patterns say of names, without the fixed folders."""
        return " ".join("/".join(pattern.parts) for pattern in self._patterns)

    def scan(self, known: Callable[[str], bool] = lambda _: False) -> ScanResult:
        """Look once at every pattern; files for which `known` is true are counted but not asked for their size and date."""
        self._understand()
        result = ScanResult()
        seen: set[str] = set()
        walked: set[str] = set()
        for pattern in self._patterns:
            missing = _missing(pattern)
            if missing and self._is_a_choice_not_taken(pattern):
                continue
            if missing:
                sentence = f"{missing} of --data '{pattern.text}' cannot be found: check the path and that the disk is mounted."
                sentence = f"The folder {sentence} {nearest_folder(missing)}".rstrip()
                result.standing.append(Trouble(f"source-missing:{missing}", sentence, "error"))
                result.complete = False
                continue
            self._seen_roots.add(pattern.root)
            for files in self._walk(pattern.root, pattern.parts, result, walked):
                new = [entry for entry in files if entry.path not in seen and entry.name not in self._exclude_names]
                new += [entry for entry in files if entry.name in self._exclude_names and self._is_meant(entry, seen)]
                seen.update([entry.path for entry in new])
                result.matched += len(new)
                unknown = [entry for entry in new if not known(entry.path)]
                for entry in sorted(unknown, key=lambda entry: entry.name):
                    _look(entry, result)
        self._names = {folder: names for folder, names in self._names.items() if folder in walked}
        return result

    def _is_a_choice_not_taken(self, pattern: Pattern) -> bool:
        """Tell whether a missing folder is one that braces offer beside others that are there, and was never seen."""
        others = [one for one in self._patterns if one.text == pattern.text and not _missing(one)]
        return bool(others) and pattern.root not in self._seen_roots

    def nothing_matches(self) -> str:
        """Return what to say when a scan found nothing: what there is instead."""
        given = ", ".join(f"'{text}'" for text in dict.fromkeys(pattern.text for pattern in self._patterns))
        there = what_is_there(self._patterns, self._exclude, self._endings, self._formats)
        return f"No {self._formats} file matches --data {given} so far. {there}".rstrip()

    def _is_meant(self, entry: os.DirEntry[str], seen: set[str]) -> bool:
        """Tell whether a file that is called like one that is never taken in is another one."""
        return entry.path not in seen and os.path.realpath(entry.path) not in self._exclude

    def _walk(
        self, folder: str, parts: tuple[str, ...], result: ScanResult, walked: set[str]
    ) -> Iterator[list[os.DirEntry[str]]]:
        """Yield the files that match `parts` of each folder, from `folder` down, in the order of the folders' names."""
        listing = self._list(folder, result, walked)
        if listing is None:
            return
        if parts[0] == "**":
            # no folders: the rest applies here; one or more: into each sub-folder (links are not followed, they could form a loop)
            yield from self._match(listing, parts[1:] or ("*",), result, walked)
            for entry in listing.folders():
                if not _is_passed_over(entry, result):
                    yield from self._walk(entry.path, parts, result, walked)
            return
        yield from self._match(listing, parts, result, walked)

    def _match(
        self, listing: Listing, parts: tuple[str, ...], result: ScanResult, walked: set[str]
    ) -> Iterator[list[os.DirEntry[str]]]:
        head, rest = parts[0], parts[1:]
        if not rest:
            result.temporary += [entry.path for entry in listing.temporary(head) if not is_folder(entry, follow=True)]
            yield listing.files(head)
            return
        for entry in listing.named(head):
            if is_folder(entry, follow=True):
                named = head.lower().startswith(
                    entry.name[:2].lower()
                )  # else a wildcard takes it in, and nobody asked for it
                if named or not _is_passed_over(entry, result):
                    yield from self._walk(entry.path, rest, result, walked)

    def _list(self, folder: str, result: ScanResult, walked: set[str]) -> Listing | None:
        try:
            with os.scandir(folder) as scan:
                entries = list(scan)
        except FileNotFoundError:  # removed between two steps of the walk
            return None
        except OSError as error:
            sentence = f"The folder {folder} cannot be read ({error.strerror}): check its permissions and the mount."
            result.standing.append(Trouble(f"source-unreadable:{folder}", sentence, "error"))
            result.complete = False
            return None
        listing = Listing(entries, self._names.get(folder), self._endings)
        self._names[folder] = listing.names
        if folder not in self._roots and _PROJECT_MARK in listing.names.all:
            return None  # a project's own files, below the folder that is watched, are not the microscope's
        if folder not in walked:
            walked.add(folder)
            if self._sidecars:
                result.sidecars += [entry.path for entry in listing.ending_with(self._sidecars)]
        return listing


def _is_passed_over(folder: os.DirEntry[str], result: ScanResult) -> bool:
    """Tell whether a folder is none that wildcards stand for, and note it."""
    if is_system_folder(folder.name):
        result.system_folders.append(folder.path)
    elif folder.name.startswith(".") and folder.name != _PROJECT_MARK:
        result.hidden_folders.append(folder.path)
    return is_system_folder(folder.name) or folder.name.startswith(".")


def look_at(path: str) -> Sighting | None:
    """Return the file's present size and date; None when it is not there, or cannot be reached."""
    try:
        status = os.stat(path)
    except OSError:  # gone, a lost mount, a forbidden folder: in each case there is nothing to take or to remove now
        return None
    return Sighting(path, status.st_size, status.st_mtime_ns)


def _look(entry: os.DirEntry[str], result: ScanResult) -> None:
    try:
        if entry.is_file():
            status = entry.stat()
            result.sightings.append(Sighting(entry.path, status.st_size, status.st_mtime_ns))
    except FileNotFoundError:
        return
    except OSError as error:
        key = f"source-unreadable:{os.path.dirname(entry.path)}/*"  # of a whole folder's files, the first one speaks
        if all(trouble.key != key for trouble in result.standing):
            sentence = f"{entry.path} cannot be looked at ({error.strerror}): check its permissions and the mount."
            result.standing.append(Trouble(key, sentence, "error"))
        result.complete = False


def expand_braces(text: str) -> list[str]:
    """Return the patterns that one with braces stands for, as in a shell: ``{a,b}/*.tif`` is ``a/*.tif`` and ``b/*.tif``.

    Braces without a comma are part of a name, and so are those of a folder or file that exists under this very name.
    """
    found = _BRACES.search(text)
    if found is None or os.path.lexists(os.path.expanduser(text)):
        return [text]
    before, after = text[: found.start()], text[found.end() :]
    expanded = (one for choice in found[1].split(",") for one in expand_braces(before + choice + after))
    return list(dict.fromkeys(expanded))


def _missing(pattern: Pattern) -> str:
    """Return the path of a pattern that has to be there and is not: its fixed folder, or all of it where it has no wildcards."""
    whole = os.path.join(pattern.root, *pattern.parts)
    if not os.path.isdir(pattern.root):
        return pattern.root
    return "" if glob.has_magic(whole) or os.path.lexists(whole) else whole


def _split(path: str, text: str) -> Pattern:
    """Separate the fixed folder from the parts with wildcards; a name with brackets in it that exists is meant as it is.

    One that its own wildcards match, such as a file named ``*.tif``, is found among the others.
    """
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        return Pattern(text, path, _EVERYTHING)
    parts = Path(path).parts
    root, fixed = parts[0], 1
    while fixed < len(parts) - 1:
        below = os.path.join(root, parts[fixed])
        if _MAGIC.search(parts[fixed]) and (_matches_itself(parts[fixed]) or not os.path.isdir(below)):
            break
        root, fixed = below, fixed + 1
    remaining = parts[fixed:]
    if len(remaining) == 1 and os.path.isfile(path) and not _matches_itself(remaining[0]):
        remaining = (glob.escape(remaining[0]),)
    return Pattern(text, root, remaining)


def _matches_itself(name: str) -> bool:
    return fnmatch.fnmatchcase(name, name)
