"""Tables that a round has published, without the rows of what gates hold back, and of what was made again with other optics since.

The work of a round writes the whole table, and the session makes of it the one that people and programs use: anew after each round, and whenever a
gate opens or shuts. Nothing is computed for that, and with all gates open the two are the same, byte for byte. A session that dies in between leaves
the one of before or the one of after; the next session makes it again.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from beamside.flow.gate import counts_as_done, gate_revision, shuts_nothing
from beamside.flow.optics import listed_under
from beamside.flow.stages import Stage
from beamside.formats.atomic import replace_file
from beamside.formats.star_rows import without_rows
from beamside.jobs.base import Published
from beamside.project.records import ItemState

log = logging.getLogger(__name__)


def gates_before(stage: Stage) -> tuple[int, ...]:
    """Return what the tables that `stage` has published depend on, besides its own rounds."""
    if not stage.job_type.published:
        return ()
    line = _items_of(stage).line
    judging = any(not shuts_nothing(one.job) for one in line)  # then another result may be held back
    optics = sum(one.job.optics_changes for one in line)
    gates = (number for one in line for number in (gate_revision(one.job), one.job.revision if judging else 0))
    return (optics, *gates)


@dataclass(frozen=True)
class Shown:
    """What published tables were made of: a round, by the number of its record, and the files whose rows were left out."""

    round: int = -1
    left_out: frozenset[str] = frozenset()


def publish(root: Path, stage: Stage, before: Shown | None = None) -> Shown:
    """Write the tables that a stage has published where they are not as they should be; returns what they were made of.

    Where that is what they were made of `before`, they are not looked at. Raises OSError when one cannot be read or written.
    """
    rounds = [entry for entry in stage.job.items.values() if entry.result is not None]
    if not stage.job_type.published or not rounds:
        return Shown()
    newest = max(rounds, key=lambda entry: entry.finished)
    outputs = (newest.result or {})["outputs"]
    shown = Shown(newest.finished, held_back_files(stage) | files_of_other_optics(stage, newest.name))
    for table in stage.job_type.published if shown != before else ():
        if table.role in outputs:
            _publish(root, stage, table, outputs[table.role], outputs.get(table.whole, ""), shown.left_out)
    return shown


def held_back_files(stage: Stage) -> frozenset[str]:
    """Return the files of the items that are held back from the rounds of `stage`."""
    source = _items_of(stage)
    if all(shuts_nothing(one.job) and not gate_revision(one.job) for one in source.line):
        return frozenset()
    held = (name for name in source.job.items if source.is_shut(name) or _is_rejected(source, name))
    return frozenset(path for name in held for path in _files_of(source, name))


def files_of_other_optics(stage: Stage, name: str) -> frozenset[str]:
    """Return the files of the items that were given out with other optics since a round was made of them: the round's tables say the former ones."""
    source, gathering = _items_of(stage), stage
    if not any(one.job.optics_changes for one in source.line):
        return frozenset()
    while gathering.gathered.job_type.aggregate:
        gathering = gathering.gathered
    made_of = gathering.entry(name)
    since = made_of.made_from if made_of is not None else -1
    others = (
        entry.name
        for entry in source.job.items.values()
        if entry.result is not None
        and (entry.optics_changed > max(since, 0) or (since >= 0 and listed_under(source, entry.name) is None))
    )
    return frozenset(path for item in others for path in _files_of(source, item))


def _items_of(stage: Stage) -> Stage:
    """Return the stage whose items the rounds of `stage` are made of."""
    while stage.job_type.aggregate:
        stage = stage.gathered
    return stage


def _is_rejected(stage: Stage, name: str) -> bool:
    """Tell whether a job has rejected an item, and nobody accepts it any more."""
    entries = [(one.job, one.entry(name)) for one in stage.line]
    return any(
        entry is not None and entry.state is ItemState.REJECTED and not counts_as_done(job, entry)
        for job, entry in entries
    )


def _files_of(stage: Stage, name: str) -> Iterator[str]:
    for one in stage.line:
        entry = one.entry(name)
        if entry is not None and entry.result is not None:
            yield from entry.result["outputs"].values()
        if one.groups is not None:
            for member in one.groups.members(name):
                yield from _files_of(one.gathered, member)


def _publish(root: Path, stage: Stage, table: Published, shown: str, whole: str, left_out: frozenset[str]) -> None:
    target, source = root / shown, root / (whole or f"{stage.job.name}/{table.file}")
    if not whole and not source.exists():  # the round is of a version that wrote only what is shown
        if not left_out or not target.exists():
            return
        replace_file(source, target.read_bytes())
    try:
        content = source.read_bytes()
    except FileNotFoundError as error:
        if not left_out and target.exists():
            return
        again = f"the whole table is gone, and is made again with --recompute missing: {source.name}"
        raise FileNotFoundError(errno.ENOENT, again, str(source)) from error
    if left_out:
        text = content.decode("utf-8", "surrogateescape")
        text = without_rows(text, table.block, table.column, left_out, str(source))
        content = text.encode("utf-8", "surrogateescape")
    if not target.exists() or target.read_bytes() != content:
        replace_file(target, content)
        if left_out:
            log.info("%s is written without what is held back (%d files)", shown, len(left_out))
