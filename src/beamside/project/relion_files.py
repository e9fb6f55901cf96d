"""The files of a job directory that RELION reads: options, notes, exit markers, aliases and the entries of its file browser."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from beamside.errors import CorruptFileError, InputError, ProjectError
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.project.relion_pipeline import Pipeline, RelionJob, RelionNode, format_pipeline, number_of_job
from beamside.project.relion_recovery import EXIT_MARKERS, read_pipeline
from beamside.project.relion_types import browser_folders, node_label, node_number_from_file, remembered_options_file

JOB_PIPELINE_FILE = "job_pipeline.star"
ABORT_MARKER = "RELION_JOB_ABORT_NOW"

_FORBIDDEN_IN_ALIAS = re.compile(r"[*?()/\"'\\|#<>&%{}$\x00-\x1f]")

_log = logging.getLogger(__name__)


def write_job_files(root: Path, job: RelionJob, options: Mapping[str, str], command: str, when: datetime) -> None:
    """Write what RELION writes when a job begins: ``job.star``, ``job_pipeline.star``, ``note.txt``, ``run.out``, ``run.err``.

    Markers of an earlier run are removed, and `options` become the ones that RELION's window shows for the next job of this type. Calling it
    again, for a job that is continued, adds to the notes.

    Parameters
    ----------
    options : RELION's option names (``bin_factor``) and values; booleans are "Yes" and "No"
    command : what was run, for the notes
    when : local time of the start
    """
    root = Path(root)
    directory = root / job.name
    number_of_job(job.name)
    directory.mkdir(parents=True, exist_ok=True)
    clear_markers(root, job.name)
    write_job_options(root, job, options)
    write_job_pipeline(root, replace(job, status="Running"))
    with open(directory / "note.txt", "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(
            f"\n ++++ Executing new job on {when.ctime()}\n ++++ with the following command(s): \n{command}\n ++++ \n"
        )
    for name in ("run.out", "run.err"):
        (directory / name).touch()


def write_job_options(root: Path, job: RelionJob, options: Mapping[str, str]) -> None:
    """Write only ``job.star`` and the options that RELION's window shows for the next job of this type."""
    blocks = _option_blocks(job.type, job.label, options)
    write_star(root / job.name / "job.star", blocks)
    remember_options(root, job.type, job.label, options)


def remember_options(root: Path, job_type: int, label: str, options: Mapping[str, str]) -> None:
    """Write the options that RELION's window shows for the next job of a type, unless RELION wrote some since: those are its user's own."""
    path = Path(root) / remembered_options_file(label)
    if not path.exists() or _written_by_us(path, "job", ("rlnJobType", "rlnJobTypeLabel")):
        write_star(path, _option_blocks(job_type, label, options))


def _option_blocks(job_type: int, label: str, options: Mapping[str, str]) -> list[StarBlock]:
    return [
        StarBlock.from_mapping(
            "job", {"rlnJobType": job_type, "rlnJobIsContinue": 0, "rlnJobTypeLabel": label, "rlnJobIsTomo": 0}
        ),
        StarBlock(
            "joboptions_values",
            ["rlnJobOptionVariable", "rlnJobOptionValue"],
            [[key, options[key]] for key in sorted(options)],
        ),
    ]


def write_job_pipeline(root: Path, job: RelionJob, made: Mapping[str, RelionNode] | None = None) -> None:
    """Write RELION's small graph of one job: no alias, counter 2. What others have `made`, by name, may not be in RELION's pipeline yet."""
    known = {**read_pipeline(root).nodes(), **(made or {})} if job.inputs else {}
    inputs = tuple(known.get(name) or node_of_file(name) for name in job.inputs)
    alone = RelionJob(job.name, job.type, job.label, None, job.status, job.inputs, job.outputs)
    write_star(Path(root) / job.name / JOB_PIPELINE_FILE, format_pipeline(Pipeline((alone,), 2, inputs)))


def ran_in_relion(root: Path, job: str) -> bool:
    """Return True when RELION wrote ``job_pipeline.star`` after us: it knows numbers or labels, only we write both."""
    path = Path(root) / job / JOB_PIPELINE_FILE
    return not _written_by_us(path, "pipeline_processes", ("rlnPipeLineProcessType", "rlnPipeLineProcessTypeLabel"))


def _written_by_us(path: Path, table: str, labels: Sequence[str]) -> bool:
    """Return True unless the table is there and lacks some of the `labels`: RELION 3.1 writes numbers, RELION 4 and 5 labels, we write both."""
    try:
        block = read_star(path).get(table)
    except (InputError, CorruptFileError):
        return True
    return block is None or all(label in block for label in labels)


def node_of_file(name: str) -> RelionNode:
    """Return the node of a file that no job is known to have made, with the type that its name suggests."""
    number = node_number_from_file(name)
    return RelionNode(name, number, node_label(None, number))


def mark_exit(root: Path, job: str, ending: Literal["SUCCESS", "FAILURE", "ABORTED"]) -> None:
    """Leave the marker by which RELION learns how the job ended, instead of any earlier one."""
    directory = Path(root) / job
    for other in EXIT_MARKERS:
        if other != ending:
            (directory / f"RELION_JOB_EXIT_{other}").unlink(missing_ok=True)
    (directory / f"RELION_JOB_EXIT_{ending}").touch()


def clear_markers(root: Path, job: str) -> None:
    """Remove all markers of a job, as RELION does when it begins."""
    directory = Path(root) / job
    for name in (ABORT_MARKER, *(f"RELION_JOB_EXIT_{ending}" for ending in EXIT_MARKERS)):
        (directory / name).unlink(missing_ok=True)


def abort_requested(root: Path, job: str) -> bool:
    """Return True, once, when a user of RELION asked this job to stop; the request is taken away, as RELION expects."""
    try:
        (Path(root) / job / ABORT_MARKER).unlink()
    except FileNotFoundError:
        return False
    return True


def validate_alias(text: str) -> str:
    """Return the name that RELION accepts as an alias, spaces as underscores. Raises ProjectError when it breaks RELION's rules."""
    alias = text.strip().replace(" ", "_")
    if len(alias) < 2:
        raise ProjectError(f"The alias {text!r} is too short; RELION wants at least two characters.")
    if alias.startswith("job"):
        raise ProjectError(
            f"The alias {text!r} begins with 'job', which RELION keeps for job directories; choose another."
        )
    if alias in {"None", ".."}:
        raise ProjectError(f"The alias {text!r} means something else to RELION; choose another.")
    if _FORBIDDEN_IN_ALIAS.search(alias):
        raise ProjectError(
            f"The alias {text!r} has characters that RELION does not allow (* ? ( ) / \" ' \\ | # < > & % {{ }} $); leave them out."
        )
    return alias


def link_alias(root: Path, job: RelionJob) -> None:
    """Make the symbolic link ``Type/alias -> ../Type/jobNNN/`` of a job that has an alias; a real file in its place is left alone."""
    if not job.alias:
        return
    link = Path(root) / job.alias
    target = f"../{job.name}/"
    if link.is_symlink():
        if str(link.readlink()).rstrip("/") == target.rstrip("/"):
            return
        link.unlink()
    elif link.exists():
        _log.warning("%s is in the way of the alias of %s; move it away.", link, job.name)
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def unlink_alias(root: Path, job: RelionJob) -> None:
    """Remove the link of a job's alias, when it is a link to this job."""
    link = Path(root) / (job.alias or "")
    if job.alias and link.is_symlink() and link.readlink().name == Path(job.name).name:
        link.unlink()


def register_nodes(root: Path, job: RelionJob) -> None:
    """Make the entries in ``.Nodes`` by which RELION's file browser finds the outputs of a job that exist: as each version names the type."""
    root = Path(root)
    nodes = [(node.name, browser_folders(node.type, node.label)) for node in job.outputs]
    for name, folders in (*nodes, *((name, browser_folders(None, label)) for name, label in job.browsed)):
        if not (root / name).exists():
            continue
        for entry in (root / ".Nodes" / folder / _browsed_path(job, name) for folder in folders):
            if not entry.exists():
                entry.parent.mkdir(parents=True, exist_ok=True)
                entry.touch()


def unregister_node(root: Path, job: RelionJob, node: RelionNode) -> None:
    """Remove the entries of an output that is none any more."""
    for folder in browser_folders(node.type, node.label):
        (Path(root) / ".Nodes" / folder / _browsed_path(job, node.name)).unlink(missing_ok=True)


def _browsed_path(job: RelionJob, name: str) -> str:
    return f"{job.alias or job.name}/{name.removeprefix(f'{job.name}/')}"
