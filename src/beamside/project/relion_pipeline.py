"""RELION's graph of jobs and files: ``default_pipeline.star`` as data, read from what any RELION wrote and formatted for all of them.

The file is written with both number and label columns, so that RELION 3.1 (numbers) and RELION 4 and 5 (labels) open it. RELION rewrites it in place,
without a temporary file, so it can be found torn: `beamside.project.relion_recovery` reads it in any case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from beamside.errors import CorruptFileError, ProjectError
from beamside.formats.star import StarBlock, parse_star
from beamside.project.relion_types import (
    STATUSES,
    JobStatus,
    job_label,
    job_number,
    node_label,
    node_number,
    node_number_from_file,
    relion4_label,
)

PIPELINE_FILE = "default_pipeline.star"
JOB_DIRECTORY = re.compile(r"job(\d{3,})")
"""What the name of a job directory looks like."""
OWN_BLOCK = "beamside"
"""Our own table in the file. RELION reads its tables by their names, and leaves this one out when it writes."""
UNREAD_LABEL = "beamsideUnreadJobCounter"


@dataclass(frozen=True)
class RelionNode:
    """A file that jobs make and use: its path in the project, RELION 3.1's type number, RELION 4's label, and RELION 5's matching depth."""

    name: str
    type: int
    label: str
    depth: int = 1


@dataclass(frozen=True)
class RelionJob:
    """A job as RELION sees it.

    Attributes
    ----------
    name : "MotionCorr/job002"
    type, label : RELION 3.1's number and RELION 4's label of the job type
    alias : "MotionCorr/first_try", or None
    inputs : names of the nodes it uses
    outputs : the nodes it makes
    browsed : further files that it makes, with RELION 4's labels: no nodes, and offered by the file browser of RELION 4 and 5 as inputs
    """

    name: str
    type: int
    label: str
    alias: str | None
    status: JobStatus
    inputs: tuple[str, ...] = ()
    outputs: tuple[RelionNode, ...] = ()
    browsed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """All jobs, in RELION's order; the next job's number; and the nodes that no job makes (files that a user typed in).

    `unread` is the first job number that no RELION program can have read from the file as the next one, or None when RELION wrote the file and so
    may have read its counter. It is our own note in the file, no part of the graph: pipelines that differ in it alone are equal.
    """

    jobs: tuple[RelionJob, ...] = ()
    counter: int = 1
    loose_nodes: tuple[RelionNode, ...] = ()
    unread: int | None = field(default=None, compare=False)

    def job(self, name: str) -> RelionJob | None:
        """Return the job of that name, or None."""
        return next((job for job in self.jobs if job.name == name), None)

    def nodes(self) -> dict[str, RelionNode]:
        """Return every node by name."""
        nodes = {node.name: node for node in self.loose_nodes}
        return nodes | {node.name: node for job in self.jobs for node in job.outputs}


def job_directory(number: int) -> str:
    """Return the name of job directory `number`: three digits below 1000, plain above."""
    return f"job{number:03d}"


def number_of_job(name: str) -> int:
    """Return the number in a job's name, 2 for "MotionCorr/job002". Raises ProjectError for other names."""
    match = JOB_DIRECTORY.fullmatch(name.rstrip("/").rsplit("/", 1)[-1])
    if not match:
        raise ProjectError(f"{name} is not a RELION job; their names look like MotionCorr/job002.")
    return int(match.group(1))


def parse_pipeline(content: bytes, source: str = PIPELINE_FILE) -> Pipeline:
    """Return the pipeline in a file's content. Raises CorruptFileError when it is torn or not a pipeline.

    Edges that name an unknown job or file are dropped, as RELION does.
    """
    blocks = parse_star(content, source)
    if "pipeline_general" not in blocks:
        raise CorruptFileError(
            f"{source} has no table data_pipeline_general; it is not a RELION pipeline, or it was torn."
        )
    counter = int(blocks["pipeline_general"].integers("rlnPipeLineJobCounter")[0])
    if counter < 1:
        raise CorruptFileError(f"{source} has the job counter {counter}; it must be at least 1.")
    return replace(_assemble(blocks, counter), unread=_unread(blocks.get(OWN_BLOCK)))


def format_pipeline(pipeline: Pipeline) -> list[StarBlock]:
    """Return the STAR blocks of a pipeline, with numbers for RELION 3.1 and labels for RELION 4 and 5; empty tables are left out."""
    nodes = list(pipeline.nodes().values())
    inputs = [[name, f"{job.name}/"] for job in pipeline.jobs for name in job.inputs]
    outputs = [[f"{job.name}/", node.name] for job in pipeline.jobs for node in job.outputs]
    tables = [
        StarBlock(
            "pipeline_processes",
            [f"rlnPipeLineProcess{c}" for c in _PROCESS_COLUMNS],
            [_process_row(job) for job in pipeline.jobs],
        ),
        _nodes_block(nodes),
        StarBlock(
            "pipeline_input_edges", ["rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"], [[*edge] for edge in inputs]
        ),
        StarBlock(
            "pipeline_output_edges", ["rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"], [[*edge] for edge in outputs]
        ),
    ]
    general = StarBlock.from_mapping("pipeline_general", {"rlnPipeLineJobCounter": pipeline.counter})
    own = [] if pipeline.unread is None else [StarBlock.from_mapping(OWN_BLOCK, {UNREAD_LABEL: pipeline.unread})]
    return [general, *(table for table in tables if table.rows), *own]


def _unread(block: StarBlock | None) -> int | None:
    return int(block.integers(UNREAD_LABEL)[0]) if block is not None and UNREAD_LABEL in block else None


_PROCESS_COLUMNS = ("Name", "Alias", "Type", "Status", "TypeLabel", "StatusLabel")


def _process_row(job: RelionJob) -> list[str | int | float]:
    alias = f"{job.alias}/" if job.alias else "None"
    return [f"{job.name}/", alias, job.type, STATUSES.index(job.status), job.label, job.status]


def _nodes_block(nodes: list[RelionNode]) -> StarBlock:
    block = StarBlock("pipeline_nodes", ["rlnPipeLineNodeName", "rlnPipeLineNodeType", "rlnPipeLineNodeTypeLabel"])
    block.rows = [[node.name, node.type, relion4_label(node.label)] for node in nodes]
    if any(node.depth != 1 for node in nodes):
        block.columns.append("rlnPipeLineNodeTypeLabelDepth")
        block.rows = [[*row, node.depth] for row, node in zip(block.rows, nodes, strict=True)]
    return block


def _assemble(blocks: Mapping[str, StarBlock], counter: int) -> Pipeline:
    jobs = {job.name: job for job in _read_jobs(blocks.get("pipeline_processes"))}
    made_by: dict[str, str] = {}
    used_by: dict[str, list[str]] = {name: [] for name in jobs}
    outputs = blocks.get("pipeline_output_edges")
    if outputs is not None:
        edges = zip(outputs.texts("rlnPipeLineEdgeProcess"), outputs.texts("rlnPipeLineEdgeToNode"), strict=True)
        made_by = {node: process.rstrip("/") for process, node in edges if process.rstrip("/") in jobs}
    nodes = {node.name: node for node in read_nodes(blocks.get("pipeline_nodes"), jobs, made_by)}
    inputs = blocks.get("pipeline_input_edges")
    if inputs is not None:
        for node, process in zip(
            inputs.texts("rlnPipeLineEdgeFromNode"), inputs.texts("rlnPipeLineEdgeProcess"), strict=True
        ):
            if node in nodes and process.rstrip("/") in jobs and node not in used_by[process.rstrip("/")]:
                used_by[process.rstrip("/")].append(node)
    made: dict[str, list[RelionNode]] = {name: [] for name in jobs}
    for known in nodes.values():
        if known.name in made_by:
            made[made_by[known.name]].append(known)
    complete = [replace(job, inputs=tuple(used_by[name]), outputs=tuple(made[name])) for name, job in jobs.items()]
    return Pipeline(tuple(complete), counter, tuple(node for name, node in nodes.items() if name not in made_by))


def _read_jobs(block: StarBlock | None) -> list[RelionJob]:
    if block is None:
        return []
    names, aliases = block.texts("rlnPipeLineProcessName"), block.texts("rlnPipeLineProcessAlias")
    types = _job_types(block)
    return [
        RelionJob(name.rstrip("/"), number, label, None if alias == "None" else alias.rstrip("/"), status)
        for name, alias, (number, label), status in zip(names, aliases, types, _job_statuses(block), strict=True)
    ]


def _job_types(block: StarBlock) -> list[tuple[int, str]]:
    if "rlnPipeLineProcessTypeLabel" not in block:
        numbers = block.integers("rlnPipeLineProcessType").tolist()
        return [(number, job_label(number)) for number in numbers]
    labels = block.texts("rlnPipeLineProcessTypeLabel")
    if "rlnPipeLineProcessType" not in block:
        return [(job_number(label), label) for label in labels]
    return list(zip(block.integers("rlnPipeLineProcessType").tolist(), labels, strict=True))


def _job_statuses(block: StarBlock) -> list[JobStatus]:
    if "rlnPipeLineProcessStatusLabel" in block:
        labels = block.texts("rlnPipeLineProcessStatusLabel")
    else:
        labels = [
            STATUSES[number] if 0 <= number < len(STATUSES) else str(number)
            for number in block.integers("rlnPipeLineProcessStatus")
        ]
    unknown = [label for label in labels if label not in STATUSES]
    if unknown:
        raise CorruptFileError(f"The pipeline has a job of status {unknown[0]!r}; RELION knows {', '.join(STATUSES)}.")
    return [cast(JobStatus, label) for label in labels]


def read_nodes(block: StarBlock | None, jobs: Mapping[str, RelionJob], made_by: Mapping[str, str]) -> list[RelionNode]:
    """Return the nodes in a table of nodes; `made_by` names the job that made each, from which missing labels follow."""
    if block is None:
        return []
    names = block.texts("rlnPipeLineNodeName")
    numbers = block.integers("rlnPipeLineNodeType").tolist() if "rlnPipeLineNodeType" in block else [None] * len(names)
    labels = block.texts("rlnPipeLineNodeTypeLabel") if "rlnPipeLineNodeTypeLabel" in block else [""] * len(names)
    depths = (
        block.integers("rlnPipeLineNodeTypeLabelDepth").tolist()
        if "rlnPipeLineNodeTypeLabelDepth" in block
        else [1] * len(names)
    )
    nodes = []
    for name, number, label, depth in zip(names, numbers, labels, depths, strict=True):
        if number is None:
            number = node_number(label)  # noqa: PLW2901
            number = node_number_from_file(name) if number is None else number  # noqa: PLW2901
        maker = jobs.get(made_by.get(name, ""))
        known = relion4_label(label) if label else node_label(maker.type if maker else None, number)
        nodes.append(RelionNode(name, number, known, depth))
    return nodes
