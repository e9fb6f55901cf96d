"""Reading RELION's pipeline in whatever state it is found.

RELION rewrites ``default_pipeline.star`` in place, without a temporary file, so it can be found torn or missing. Every job directory has a copy of
the pipeline as it was when the job began, and a small pipeline of the job itself; from these it is put together again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from beamside.errors import CorruptFileError, InputError, ProjectError
from beamside.formats.star import read_star
from beamside.project.relion_pipeline import (
    JOB_DIRECTORY,
    PIPELINE_FILE,
    Pipeline,
    RelionJob,
    RelionNode,
    parse_pipeline,
    read_nodes,
)
from beamside.project.relion_types import JobStatus

EXIT_MARKERS: Mapping[str, JobStatus] = {"SUCCESS": "Succeeded", "FAILURE": "Failed", "ABORTED": "Aborted"}
"""End of the name of the empty file RELION_JOB_EXIT_..., and the state that it means."""

_log = logging.getLogger(__name__)


def read_pipeline(root: Path) -> Pipeline:
    """Read the project's pipeline as RELION left it; nothing is written.

    A torn or missing file is put together again from the job directories; a project without jobs gives an empty pipeline.
    """
    path = Path(root) / PIPELINE_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        recovered = recover_pipeline(root)
        return replace(recovered, unread=recovered.counter)
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}; check its permissions.") from error
    try:
        pipeline = parse_pipeline(content, str(path))
    except CorruptFileError as error:
        recovered = recover_pipeline(root)
        _log.warning("%s Recovered %d jobs from the job directories.", error, len(recovered.jobs))
        return recovered
    return _completed(pipeline, recover_pipeline(root)) if _may_be_torn(content, pipeline) else pipeline


def _may_be_torn(content: bytes, pipeline: Pipeline) -> bool:
    """Return True when the file may have been cut between two rows or tables; other programs' whole files can look so too.

    A file that ends with our own table is whole: it was put in place at once, and a RELION that tears it takes that table away first.
    """
    if pipeline.unread is not None:
        return False
    ends_with_blank_line = content.endswith(b"\n") and not content.rstrip(b"\n").rsplit(b"\n", 1)[-1].strip()
    ends_with_blank_line |= content.endswith(b"\n\n")
    tables = (
        b"data_pipeline_processes",
        b"data_pipeline_nodes",
        b"data_pipeline_input_edges",
        b"data_pipeline_output_edges",
    )
    missing = pipeline.counter > 1 and any(table not in content for table in tables)
    return missing or not ends_with_blank_line


def _completed(pipeline: Pipeline, recovered: Pipeline) -> Pipeline:
    """Return `pipeline` with the jobs, nodes and edges that only the copies in the job directories have."""
    jobs = {job.name: job for job in pipeline.jobs}
    for old in recovered.jobs:
        job = jobs.get(old.name, old)
        known = {node.name for node in job.outputs}
        jobs[old.name] = replace(
            job,
            inputs=(*job.inputs, *(name for name in old.inputs if name not in job.inputs)),
            outputs=(*job.outputs, *(node for node in old.outputs if node.name not in known)),
        )
    nodes = recovered.nodes() | pipeline.nodes()
    loose = {node.name: node for node in (*_still_loose(nodes, jobs.values()), *pipeline.loose_nodes)}
    made = {node.name for job in jobs.values() for node in job.outputs}
    loose_nodes = tuple(node for name, node in loose.items() if name not in made)
    return Pipeline(tuple(jobs.values()), max(pipeline.counter, recovered.counter), loose_nodes)


def recover_pipeline(root: Path) -> Pipeline:
    """Put the pipeline together from the job directories.

    The copy of the pipeline with the highest job counter gives the jobs; the ``job_pipeline.star`` of a job directory adds a job that the copy lacks;
    jobs whose directory is gone are left out; exit markers give the states and symbolic links the aliases, which are newer than the copy.
    """
    root = Path(root)
    directories = sorted(
        (
            path
            for path in root.glob("*/job*")
            if not path.is_symlink() and path.is_dir() and JOB_DIRECTORY.fullmatch(path.name)
        ),
        key=lambda path: int(path.name[3:]),
    )
    copies = [copy for directory in directories if (copy := _try_read(directory / PIPELINE_FILE))]
    newest = max(copies, key=lambda copy: (copy.counter, len(copy.jobs)), default=Pipeline())
    nodes = newest.nodes()
    jobs = {job.name: job for job in newest.jobs}
    for directory in directories:
        name = f"{directory.parent.name}/{directory.name}"
        own = _try_read(directory / "job_pipeline.star") if name not in jobs else None
        if own is not None and (job := own.job(name)) is not None:
            jobs[name] = job
            nodes = own.nodes() | nodes
    present = [_refreshed(root, job) for job in jobs.values() if (root / job.name).is_dir()]
    counter = max([newest.counter, *(int(directory.name[3:]) + 1 for directory in directories)])
    return Pipeline(tuple(present), counter, _still_loose(nodes, present))


def _still_loose(nodes: Mapping[str, RelionNode], jobs: Iterable[RelionJob]) -> tuple[RelionNode, ...]:
    made = {node.name for job in jobs for node in job.outputs}
    used = {name for job in jobs for name in job.inputs}
    return tuple(node for name, node in nodes.items() if name in used and name not in made)


def _try_read(path: Path) -> Pipeline | None:
    try:
        return parse_pipeline(path.read_bytes(), str(path))
    except (OSError, CorruptFileError):
        return None


def _refreshed(root: Path, job: RelionJob) -> RelionJob:
    status = exit_status(root, job.name) or job.status
    known = {node.name for node in job.outputs}
    outputs = (*job.outputs, *(node for node in _announced_nodes(root, job) if node.name not in known))
    return replace(job, status=status, alias=job.alias or _linked_alias(root, job.name), outputs=outputs)


def _announced_nodes(root: Path, job: RelionJob) -> list[RelionNode]:
    """Return the nodes in ``RELION_OUTPUT_NODES.star``, by which external programs tell what they made."""
    try:
        block = read_star(root / job.name / "RELION_OUTPUT_NODES.star").get("output_nodes")
        names = block.texts("rlnPipeLineNodeName") if block else []
        return read_nodes(block, {job.name: job}, dict.fromkeys(names, job.name))
    except (InputError, CorruptFileError):
        return []


def exit_status(root: Path, job: str) -> JobStatus | None:
    """Return the state that the exit marker in a job's directory means, or None without one."""
    for ending, status in EXIT_MARKERS.items():
        if (Path(root) / job / f"RELION_JOB_EXIT_{ending}").exists():
            return status
    return None


def _linked_alias(root: Path, job: str) -> str | None:
    directory = root / job
    for path in directory.parent.iterdir():
        if path.is_symlink() and path.readlink().name == directory.name and not JOB_DIRECTORY.fullmatch(path.name):
            return f"{directory.parent.name}/{path.name}"
    return None
