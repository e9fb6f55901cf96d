"""What lies beside the movies in a camera's folder and is none: references, sums, maps, and the folders and left-overs of other programs.

Among movies, a file's content decides: a single image is no movie, whatever it is called, and a movie of several frames is one even if it is
called "Atlas". The name only says what the image is. Among micrographs, which are single images too, the names of acquisition programs decide;
a pattern that asks for such names by their own word (``--data '/run/Atlas_*.mrc'``) gets them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

_SYSTEM_FOLDERS = frozenset(
    {
        # Windows and its shares
        "$recycle.bin", "recycler", "recycled", "system volume information", "config.msi", "msocache", "found.000", "~snapshot",
        # macOS and its shares
        "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", ".trashes", ".fseventsd", ".spotlight-v100",
        ".temporaryitems", ".appledouble", ".documentrevisions-v100",
        # Linux, ZFS, NetApp, Isilon, GPFS, Ceph, Gluster
        "lost+found", ".trash", ".zfs", ".snapshot", ".snapshots", ".snap", ".ifsvar", ".glusterfs",
        # Synology and QNAP
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "@sharesnap", "@transcode", "@s2s", "#recycle", "#snapshot",
    }
)  # fmt: skip
_SYSTEM_PREFIXES = (".trash-", ".@__", "found.0")

_MARKS = frozenset(  # WinSCP, browsers, rclone and others; also before the ending: x.part.tiff
    {"tmp", "temp", "part", "partial", "filepart", "crdownload", "download", "swp", "incomplete", "inprogress", "uploading", "ffs_tmp"}
)  # fmt: skip
_BITTORRENT = re.compile(r"!\w{1,3}")
_LONGEST_ENDING = 5
_DOWNLOADING = re.compile(
    r"^downloading[-_.]?|[-_.]?downloading", re.IGNORECASE
)  # Murfey's and others' prefix or suffix
_HIDDEN = re.compile(r"^(\._|~\$|[.~])")
_RANDOM_ENDING = re.compile(r"\.\w{6,8}$")  # rsync: .x.tiff.Xa3f9Q; rclone: x.tiff.1a2b3c4d.partial


@dataclass(frozen=True)
class Kind:
    """A kind of bystander.

    Attributes
    ----------
    subject : stable name, by which those of one kind are counted together
    words : what it is, with its article
    asked_by : words of a pattern which show that this kind is asked for
    """

    subject: str
    words: str
    asked_by: tuple[str, ...] = ()


GAIN = Kind("gain-in-folder", "a gain reference", ("gain", "ref", "norm", "dark", "bright"))
OVERVIEW = Kind(
    "overview-image", "an overview image of the acquisition program", ("atlas", "gridsquare", "foilhole", "tile")
)
LEGINON_OVERVIEW = Kind("overview-image", "an overview image of Leginon", ("gr.", "sq.", "hl.", "fa.", "fc."))
SUM = Kind("sum-image", "a sum that the acquisition program made of an exposure")
SINGLE = Kind("single-image", "a single image")
STACK = Kind("image-stack", "a stack of images or a map of SerialEM, by its .mdoc file")
MOVIE = Kind("movie-among-micrographs", "a movie or a stack")

_NAMES: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        # SerialEM: CountRef_..., SuperRef_...; EPU: ..._gain.tiff (K3), ...-gain-ref.MRC (K2), ..._GainReference.gain; Leginon: ..._norm_0
        (GAIN, r"^(count|super)ref[-_.]|(^|[-_. ]|eer_)gain([-_ ]?ref(erence)?)?([-_ .]?\d+)?$|_\d+x\d+_(norm|dark|bright)_\d+$"),
        # EPU's overview images, also its images of foil holes, which have no "_Data_"
        (OVERVIEW, r"^atlas(_\d+)*$|^gridsquare_\d{8}_\d{4,6}|^tile_\d+(_\d+)+$|^foilhole_\d+_\d{8}_\d{4,6}$"),
        # Leginon's grid, square and hole images end with the preset's name, as exposures do with another ("en", "ex")
        (LEGINON_OVERVIEW, r"_\d{5}(gr|sq|hl|fa|fc)(_v\d\d)?$"),
        # EPU's sums carry the exposure's name without "_Fractions", "_EER" or the number of a K2 movie
        (SUM, r"^foilhole_\d+_data_\d+(_\d+)*_\d{8}_\d{4,6}$"),
    )
)  # fmt: skip


def is_system_folder(name: str) -> bool:
    """Tell whether a folder belongs to an operating system or a storage system: its trash, its snapshots, its thumbnails."""
    lower = name.lower()
    return lower in _SYSTEM_FOLDERS or lower.startswith(_SYSTEM_PREFIXES)


def is_temporary(name: str) -> bool:
    """Tell whether a name is one that programs give to files which they are still writing."""
    return name.startswith((".", "~")) or _has_mark(name)


def is_unfinished(name: str) -> bool:
    """Tell whether a temporary name is that of a copy which gets another name when it is complete; hidden files keep theirs."""
    hidden = _HIDDEN.match(name)
    return _has_mark(name) or bool(hidden and _RANDOM_ENDING.search(name[hidden.end() :]))


def final_names(name: str) -> tuple[str, ...]:
    """Return the names that a file with a temporary or hidden name may get: of ``.x.tiff.Xa3f9Q``, ``x.tiff.Xa3f9Q`` and ``x.tiff``."""
    plain = _DOWNLOADING.sub("", _HIDDEN.sub("", name)).rstrip("~")
    plain = ".".join(part for part in plain.split(".") if not _is_mark(part.lower()))
    return plain, _RANDOM_ENDING.sub("", plain)


def _has_mark(name: str) -> bool:
    lower = name.lower()
    *_, before, last = ("", "", *lower.split(".")[1:])
    return (
        _is_mark(last)
        or (_is_mark(before) and len(last) <= _LONGEST_ENDING)
        or lower.endswith("~")
        or "downloading" in lower
    )


def _is_mark(part: str) -> bool:
    return part in _MARKS or (part.startswith("!") and _BITTORRENT.fullmatch(part) is not None)


def is_robocopy_date(mtime_ns: int) -> bool:
    """Tell whether a date is the beginning of 1980 in some time zone, to the second: robocopy dates files so until they are copied whole."""
    seconds = mtime_ns / 1e9 - 315_532_800
    return abs(seconds) <= 14 * 3600 and seconds % 900 == 0


def kind_by_name(path: str) -> Kind | None:
    """Return what an image is, by the name that acquisition programs give to such; None when the name does not say."""
    stem = PurePath(path).stem.lower()
    return next((kind for kind, pattern in _NAMES if pattern.search(stem)), None)


def among_movies(path: str, frames: int, asked: str = "") -> Kind | None:
    """Return what a complete file of so many images is when it is no movie; None when it is one."""
    return None if frames > 1 else kind_by_name(path) or SINGLE


def among_micrographs(path: str, frames: int, asked: str = "") -> Kind | None:
    """Return what a complete file of so many images is when it is no micrograph; None when it is one.

    `asked` is the pattern that matched it, as far as it has wildcards.
    """
    named = kind_by_name(path)
    if frames > 1:
        return MOVIE
    if named is None or named is SUM or any(word in asked.lower() for word in named.asked_by):
        return None
    return named


def is_image_stack(sidecar: Path) -> bool:
    """Tell whether an mdoc file describes a stack of separate exposures or a montage, and not the frames of one exposure.

    SerialEM describes the frames of an exposure under one ``[FrameSet = 0]``; of a stack, each image under its own ``[ZValue = n]``, and a
    montage has ``[MontSection = n]``. A movie with one ``[ZValue = 0]``, as other programs write, stays one.
    """
    try:
        text = sidecar.read_bytes()[: 1 << 20].decode("utf-8-sig", "replace")
    except OSError:
        return False
    sections = re.findall(r"^\s*\[(ZValue|MontSection|FrameSet)\s*=", text, re.MULTILINE)
    return "FrameSet" not in sections and (sections.count("ZValue") > 1 or "MontSection" in sections)


def sentence_among_movies(kind: Kind, path: str) -> str:
    """Return what is told of one file that is passed over among movies."""
    if kind is STACK:
        return f"{path} is {kind.words}: it is not used as a movie."
    hint = " Give --workflow micrographs if the images to process are sums already." if kind in (SUM, SINGLE) else ""
    return f"{path} is {kind.words} and not a movie: it is not used.{hint}"


def sentence_among_micrographs(kind: Kind, path: str) -> str:
    """Return what is told of one file that is passed over among micrographs."""
    if kind is MOVIE:
        return (
            f"{path} has several images, and the session takes micrographs: it is not used. "
            "Give --workflow movies to process movies."
        )
    return f"{path} is {kind.words} by its name: it is not used as a micrograph. Name it in --data if it is one."
