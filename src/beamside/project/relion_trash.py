"""What RELION's user has thrown away: files that were cleaned, and jobs that were deleted.

RELION moves both to ``Trash/``, under the path that they had. A directory that is cleaned a second time ends up inside the one of the first time
(``Trash/Extract/job005/raw/raw``); a job that is deleted after it was cleaned stays where it is, because ``mv`` does not replace the directory that
cleaning has made, and is only taken out of the pipeline.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from beamside.errors import InputError
from beamside.formats.star import read_star
from beamside.project.relion_pipeline import Pipeline

TRASH = "Trash"
DELETED_FILE = "deleted_pipeline.star"
"""RELION's record of what it took out of the pipeline, in the directory of the first job that it deleted."""


def places_in_trash(path: str) -> list[str]:
    """Return the paths in the project that a file with this `path` may have after cleaning or deleting has moved it to ``Trash/``."""
    parts = PurePosixPath(path).parts
    places = [parts, *((*parts[:end], *parts[end - 1 :]) for end in range(len(parts) - 1, 1, -1))]
    return ["/".join((TRASH, *place)) for place in places]


def was_deleted(root: Path, job: str, pipeline: Pipeline) -> bool:
    """Tell whether RELION's user has deleted a job: it is not in the pipeline, and its directory is in ``Trash/`` or RELION's record names it.

    That it is not in the pipeline alone says nothing: a window that was open before the job was made writes the file without it.
    """
    if pipeline.job(job) is not None:
        return False
    root = Path(root)
    place, trash = root / job, root / TRASH / job
    if not place.exists() and trash.is_dir():
        return True
    if (trash / "job.star").exists() and not (
        place / "job.star"
    ).exists():  # a worker that was at work has made the directory anew
        return True
    records = [*root.glob(f"*/job*/{DELETED_FILE}"), *(root / TRASH).glob(f"*/job*/{DELETED_FILE}")]
    return any(job in _named_jobs(record) for record in records)


def _named_jobs(record: Path) -> set[str]:
    try:
        block = read_star(record).get("pipeline_processes")
    except InputError:
        return set()
    names = block.texts("rlnPipeLineProcessName") if block is not None else []
    return {name.rstrip("/") for name in names}
