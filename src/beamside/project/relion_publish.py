"""Putting Beamside's jobs into RELION's pipeline without losing what RELION, or its user, put there.

Who decides what, when a job of ours is in the file already:

========================  =================================================================================================================
status                    ours; RELION's stays when it ran the job itself after ours had ended (it then rewrote ``job_pipeline.star``)
alias                     the file's, if it has one (a user gave it in RELION); else ours. `set_alias` changes it
outputs                   ours, and those RELION added while their file exists or another job uses them; older iterations of ours are dropped
inputs                    ours; RELION's when it ran the job itself
deleted in RELION         a job that RELION has deleted (`beamside.project.relion_trash`) stays deleted
========================  =================================================================================================================

Jobs that are not ours are kept as they are, in their order. Label columns, which RELION 3.1 drops at every write, are made again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from beamside.errors import CorruptFileError, ProjectError
from beamside.formats.atomic import replace_file
from beamside.formats.star import format_star
from beamside.project.relion_files import (
    link_alias,
    node_of_file,
    ran_in_relion,
    register_nodes,
    unlink_alias,
    unregister_node,
    validate_alias,
)
from beamside.project.relion_lock import RelionLock
from beamside.project.relion_pipeline import (
    PIPELINE_FILE,
    Pipeline,
    RelionJob,
    RelionNode,
    format_pipeline,
    number_of_job,
    parse_pipeline,
)
from beamside.project.relion_recovery import read_pipeline
from beamside.project.relion_trash import was_deleted

CHANGED_MARKER = ".pipeline_has_changed"
"""RELION's window reads the pipeline again when this file appears."""


def create_relion_root(root: Path, *, wait: float = 10.0) -> None:
    """Make `root` a directory that RELION opens without asking: ``.gui_projectdir`` and a pipeline. What is there already is kept."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / ".gui_projectdir").touch()
    with RelionLock(root, wait=wait):
        if not (root / PIPELINE_FILE).exists():
            _write(root, read_pipeline(root))


def next_job_number(root: Path, *, wait: float = 10.0) -> int:
    """Reserve and return the next job number, under RELION's lock, so that RELION never gives it to another job.

    The lock alone does not do that: a RELION program reads the counter under the lock, lets the lock go, makes the job's directory, and adds the
    job under a second lock without asking for its number again; its window keeps the counter it read last for longer. So a number that RELION may
    have read is left to it, and the one after it is taken: when RELION wrote the file since our last number, one number may stay unused. Numbers of
    job directories that exist for whatever reason are skipped.
    """
    root = Path(root)
    with RelionLock(root, wait=wait):
        pipeline = read_pipeline(root)
        number = max(pipeline.counter, _unread(pipeline))
        while any(root.glob(f"*/job{number:03d}")):
            number += 1
        _write(root, replace(pipeline, counter=number + 1, unread=number + 1))
    return number


def _unread(pipeline: Pipeline) -> int:
    """Return the first job number that no RELION program can have read as the next one."""
    return pipeline.counter + 1 if pipeline.unread is None else pipeline.unread


def publish_pipeline(root: Path, jobs: Sequence[RelionJob], *, wait: float = 10.0) -> Pipeline:
    """Bring `jobs`, Beamside's own, into RELION's pipeline and return what it is now. See the module for who decides what.

    The file is replaced only when something changed. Aliases, the entries in ``.Nodes`` and the copies in new job directories follow.

    Raises
    ------
    ProjectBusyError : when RELION holds its lock; nothing was changed, and a later call brings everything
    ProjectError : for a job name or an alias that RELION does not allow, or a directory that cannot be written
    """
    root = Path(root)
    for job in jobs:
        _check_names(job)
    with RelionLock(root, wait=wait):
        before = read_pipeline(root)
        after = _merged(root, before, jobs)
        _write(root, after)
    with _disk_errors(root):
        for job in after.jobs:
            link_alias(root, job)
        for published in filter(None, (after.job(ours.name) for ours in jobs)):
            register_nodes(root, published)
            _keep_copy(root, published)
        for published, node in _dropped_nodes(before, after):
            unregister_node(root, published, node)
    return after


def _dropped_nodes(before: Pipeline, after: Pipeline) -> Iterator[tuple[RelionJob, RelionNode]]:
    """Yield the outputs that jobs of the pipeline do not have any more, such as those of older iterations, each with its job."""
    nodes, jobs = after.nodes(), {job.name: job for job in after.jobs}
    for old in before.jobs:
        if old.name in jobs:
            yield from ((jobs[old.name], node) for node in old.outputs if node.name not in nodes)


def set_alias(root: Path, job: str, alias: str | None, *, wait: float = 10.0) -> None:
    """Give the job ("MotionCorr/job002") the alias `alias` ("first try"), or take it away.

    Raises ProjectError for names that RELION does not allow, that another job of the type has, or for an unknown job.
    """
    root = Path(root)
    full = f"{job.split('/', maxsplit=1)[0]}/{validate_alias(alias)}" if alias else None
    with RelionLock(root, wait=wait):
        pipeline = read_pipeline(root)
        old = pipeline.job(job)
        if old is None:
            raise ProjectError(f"The project {root} has no job {job}; see the names in {PIPELINE_FILE}.")
        if full and any(other.alias == full and other.name != job for other in pipeline.jobs):
            raise ProjectError(f"Another job has the alias {full}; choose another.")
        new = replace(old, alias=full)
        _write(root, replace(pipeline, jobs=tuple(new if other.name == job else other for other in pipeline.jobs)))
    if old.alias != full:
        unlink_alias(root, old)
    link_alias(root, new)
    register_nodes(root, new)


def _check_names(job: RelionJob) -> None:
    number_of_job(job.name)
    if job.alias:
        kind, _, alias = job.alias.partition("/")
        if kind != job.name.split("/", maxsplit=1)[0] or validate_alias(alias) != alias:
            raise ProjectError(
                f"{job.alias} cannot be the alias of {job.name}; it must be {job.name.split('/', maxsplit=1)[0]}/ and a name without blanks."
            )


def _write(root: Path, pipeline: Pipeline) -> None:
    path = root / PIPELINE_FILE
    pipeline = replace(pipeline, unread=_unread(pipeline))
    content = format_star(format_pipeline(pipeline)).encode("utf-8", "surrogateescape")
    with _disk_errors(root):
        present = path.read_bytes() if path.exists() else b""
        if present == content:
            return
        if present and _is_torn(present):
            replace_file(path.with_name(f"{PIPELINE_FILE}.torn"), present)
        replace_file(path, content)
        (root / CHANGED_MARKER).touch()


def _is_torn(content: bytes) -> bool:
    try:
        parse_pipeline(content)
    except CorruptFileError:
        return True
    return False


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProjectError(
            f"RELION's files in {root} cannot be written: {error.strerror}; make room, or make it writable."
        ) from error


def _keep_copy(root: Path, job: RelionJob) -> None:
    """Copy the pipeline into the directory of a job that has none yet, for recovery."""
    copy = root / job.name / PIPELINE_FILE
    if copy.parent.is_dir() and not copy.exists():
        replace_file(copy, (root / PIPELINE_FILE).read_bytes())


def _merged(root: Path, before: Pipeline, ours: Sequence[RelionJob]) -> Pipeline:
    jobs = {job.name: job for job in before.jobs}
    names = {job.name for job in ours if not ran_in_relion(root, job.name)}
    used = {name for job in (*(job for job in before.jobs if job.name not in names), *ours) for name in job.inputs}
    for job in ours:
        old = jobs.get(job.name)
        if old is None and was_deleted(root, job.name, before):
            continue
        taken = {other.alias for other in jobs.values() if other.name != job.name}
        alias = (old.alias if old else None) or job.alias
        merged = job if old is None else _with_additions(root, job, old, used)
        jobs[job.name] = replace(merged, alias=None if alias in taken else alias)
    counter = max([before.counter, *(number_of_job(name) + 1 for name in jobs)])
    return Pipeline(tuple(jobs.values()), counter, _loose_nodes(before, jobs.values()), _unread(before))


def _with_additions(root: Path, job: RelionJob, old: RelionJob, used: set[str]) -> RelionJob:
    names = {node.name for node in job.outputs}
    families = {_without_iteration(name) for name in (*names, *(name for name, _ in job.browsed))}
    added = tuple(node for node in old.outputs if node.name not in names and _is_kept(root, node, used, families))
    outputs = (*job.outputs, *added)
    if ran_in_relion(root, job.name):
        status = job.status if job.status == "Running" else old.status
        return replace(job, status=status, inputs=old.inputs, outputs=outputs)
    return replace(job, outputs=outputs)


def _is_kept(root: Path, node: RelionNode, used: set[str], families: set[str]) -> bool:
    return node.name in used or ((root / node.name).exists() and _without_iteration(node.name) not in families)


def _without_iteration(name: str) -> str:
    return re.sub(r"_(ct\d+_)?it\d+_", "_it_", name)


def _loose_nodes(before: Pipeline, jobs: Iterable[RelionJob]) -> tuple[RelionNode, ...]:
    """Return the nodes that no job makes: those of the file, and inputs that are in no table yet."""
    made = {node.name for job in jobs for node in job.outputs}
    known = before.nodes()
    used = {name for job in jobs for name in job.inputs}
    loose = {node.name: node for node in before.loose_nodes}
    loose |= {name: known.get(name) or node_of_file(name) for name in sorted(used - loose.keys())}
    return tuple(node for name, node in loose.items() if name not in made)
