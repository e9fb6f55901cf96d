"""When no file matches a pattern: say what is there instead, and how it differs."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from beamside.acquisition.bystanders import final_names, is_system_folder, is_temporary
from beamside.formats.movies import MRC_SUFFIXES, PNG_SUFFIXES, TIFF_SUFFIXES
from beamside.formats.rendering import EER_SUFFIX

MOVIE_SUFFIXES = (*TIFF_SUFFIXES, *MRC_SUFFIXES, EER_SUFFIX, *PNG_SUFFIXES)
FORMATS = "TIFF, MRC, EER or PNG"
COMPRESSED = (".bz2", ".gz", ".zst", ".xz", ".lz4", ".zip", ".7z", ".rar", ".tbz", ".tgz")
_SAME_ENDINGS = {".tiff": ".tif", ".mrcs": ".mrc"}
_MOST_ENTRIES = 5000
_MOST_LEVELS = 8
_LISTED = 4


@dataclass(frozen=True)
class Pattern:
    """A pattern as it was given: the folder that is fixed, and the parts below it that names are compared with."""

    text: str
    root: str
    parts: tuple[str, ...]


def what_is_there(
    patterns: Sequence[Pattern],
    given: Collection[str] = (),
    endings: tuple[str, ...] = MOVIE_SUFFIXES,
    formats: str = FORMATS,
) -> str:
    """Return sentences about the files that nearly match one of the patterns, or else about those that are there at all.

    `given` are the files that are the gain reference or the defects, and so not taken in; `formats` are the endings in words.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    others: dict[str, list[str]] = {}
    empty: list[str] = []
    for pattern in patterns:
        files = list(_files(pattern.root))
        if not files and os.path.isdir(pattern.root):
            empty.append(pattern.root)
        for path in files:
            differences = how_it_differs(path, pattern, endings)
            if os.path.realpath(path) in given:
                differences = ("given",) if differences == () else None
            if differences is not None:
                found.setdefault(differences, []).append(path)
            elif _base(path).lower().endswith(endings) and os.path.realpath(path) not in given:
                others.setdefault("" if _base(path) == path else "compressed ", []).append(path)
    near = [_sentence(differences, sorted(set(paths)), formats) for differences, paths in sorted(found.items())]
    if near:
        return " ".join(near)
    if others:
        return " ".join(_other_files(kind, sorted(set(paths))) for kind, paths in sorted(others.items()))
    return " ".join(f"The folder {root} has no files." for root in dict.fromkeys(empty))


def how_it_differs(path: str, pattern: Pattern, endings: tuple[str, ...] = MOVIE_SUFFIXES) -> tuple[str, ...] | None:
    """Return in what a file differs from a pattern: of "place", "case", "ending", "compressed", "unfinished" and "format"; None when in more.

    An empty tuple means that it matches.
    """
    *folders, name = os.path.relpath(path, pattern.root).split(os.sep)
    *wanted, last = pattern.parts
    unfinished = is_temporary(name)
    plain = name if fnmatch.fnmatchcase(name, last) else _base(name)
    near = (_differences(one, last) for one in ((plain, *final_names(name)) if unfinished else (plain,)))
    in_name = next((found for found in near if found is not None), None)
    if in_name is None:
        return None
    differences = in_name | _differences_of_place(folders, wanted)
    if unfinished:
        differences.add("unfinished")
    elif name.lower().endswith(COMPRESSED):
        differences.add("compressed")
    elif not plain.lower().endswith(endings):
        differences.add("format")
    return tuple(sorted(differences))


def _differences(name: str, wanted: str) -> set[str] | None:
    if fnmatch.fnmatchcase(name, wanted):
        return set()
    if fnmatch.fnmatchcase(name.lower(), wanted.lower()):
        return {"case"}
    if fnmatch.fnmatchcase(_usual_ending(name), _usual_ending(wanted)):
        return {"ending"}
    if fnmatch.fnmatchcase(_usual_ending(name.lower()), _usual_ending(wanted.lower())):
        return {"case", "ending"}
    return None


def _differences_of_place(folders: Sequence[str], wanted: Sequence[str]) -> set[str]:
    if _folders_match(folders, wanted):
        return set()
    lower = [folder.lower() for folder in folders], [part.lower() for part in wanted]
    return {"case"} if _folders_match(*lower) else {"place"}


def nearest_folder(path: str) -> str:
    """Return a sentence about how far a folder that cannot be found does exist, and which of its neighbours may be meant."""
    there = os.path.abspath(path)
    missing = ""
    while not os.path.lexists(there) and os.path.dirname(there) != there:
        there, missing = os.path.split(there)
    if not missing:
        return f"{there} is not a folder." if os.path.isfile(there) else ""
    if not os.path.isdir(there):
        return f"{there} is not a folder."
    try:
        names = sorted(entry.name for entry in os.scandir(there) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        return f"{there} cannot be read ({error.strerror})."
    if not names:
        return f"{there} has no folders in it."
    meant = [name for name in names if name.lower() == missing.lower()]
    meant = meant or difflib.get_close_matches(missing, names, n=2, cutoff=0.7)
    if meant:
        return f"In {there} there is {' and '.join(meant)}: is that meant?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"In {there} there {'is' if len(names) == 1 else 'are'} {', '.join(names[:_LISTED])}{more}."


_PHRASES = {
    "case": "by the case of letters",
    "ending": "by the ending (.tif and .tiff, .mrc and .mrcs are different to a pattern)",
    "place": "by the folders above (** stands for any number of folders)",
}


def _sentence(differences: tuple[str, ...], paths: list[str], formats: str) -> str:
    phrases = [_PHRASES[name] for name in differences if name in _PHRASES]
    subject = _count(paths, "file")
    if phrases:
        said = f"{subject} {'differs' if len(paths) == 1 else 'differ'} only {' and '.join(phrases)}"
    else:
        said = f"{subject} {'matches' if len(paths) == 1 else 'match'}"
    endings = ", ".join(sorted({os.path.splitext(path)[1] for path in paths}))
    if "given" in differences:
        said += ", but is given as the gain reference or as the list of defects"
    elif "compressed" in differences:
        said += f", but {_are(paths)} compressed ({endings}), which is not read: unpack {'it' if len(paths) == 1 else 'them'} first"
    elif "unfinished" in differences:
        said += f", but {'has the name' if len(paths) == 1 else 'have names'} of an unfinished copy"
    elif "format" in differences:
        said += f", but {endings or 'a name without an ending'} is not {formats}"
    return f"{said}: {_examples(paths)}."


def _other_files(kind: str, paths: list[str]) -> str:
    return f"{_count(paths, kind + 'file')} of these formats with other names {_are(paths)} there: {_examples(paths)}."


def _count(paths: Sequence[str], noun: str) -> str:
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}"


def _are(paths: Sequence[str]) -> str:
    return "is" if len(paths) == 1 else "are"


def _examples(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]}, ..."


def _base(name: str) -> str:
    """Return a name without the ending of a compressed file."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in COMPRESSED else name


def _usual_ending(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem + _SAME_ENDINGS.get(ending, ending)


def _folders_match(folders: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether folders match parts of a pattern, of which ``**`` stands for any number."""
    if not wanted:
        return not folders
    if wanted[0] == "**":
        return any(_folders_match(folders[skip:], wanted[1:]) for skip in range(len(folders) + 1))
    return bool(folders) and fnmatch.fnmatchcase(folders[0], wanted[0]) and _folders_match(folders[1:], wanted[1:])


def _files(root: str) -> Iterator[str]:
    """Yield files at and below a folder, nearest first, and not without end; also in the folder above, where a level may be too many."""
    queue = [(root, 0)]
    above = os.path.dirname(root)
    entries_seen = 0
    for folder, level in queue:
        for entry in _list(folder):
            entries_seen += 1
            if entries_seen > _MOST_ENTRIES:
                return
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    if level < _MOST_LEVELS and not is_system_folder(entry.name):
                        queue.append((entry.path, level + 1))
                elif entry.is_file():
                    yield entry.path
            except OSError:  # it can be gone by now
                continue
    if entries_seen == 0 and above != root:
        yield from (entry.path for entry in _list(above) if not entry.name.startswith(".") and entry.is_file())


def _list(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            return sorted(scan, key=lambda entry: entry.name)
    except OSError:  # the scan has told it
        return []
