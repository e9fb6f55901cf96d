"""What others see of a session is made of its tables, in good time, and costs little."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.flow.projection import SHARE, TOGETHER, Pace, Projection, rebuild
from beamside.formats.star import read_star
from beamside.project.index import Index
from beamside.project.relion_files import ABORT_MARKER
from beamside.project.relion_recovery import read_pipeline


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path)
    run.projection = Projection(run.settings, run.writer, run.tables.stages, run.tables.problems)
    run.projection.open_jobs()
    yield run
    run.writer.close()


def table(run: Any, job: str) -> list[str]:
    return read_star(run.project.root / run.stage(job).job.name / "table.star")["items"].texts("rlnMicrographName")


def test_tables_have_what_is_done_and_leave_out_what_was_given_up(run: Any) -> None:
    run.arrive("m1", "m2")
    run.arrive("m3", content="bad")
    run.work_off()
    run.projection.refresh(dict, force=True)
    assert table(run, "first") == ["raw/m1", "raw/m2", "raw/m3"]
    assert table(run, "second") == table(run, "third") == ["raw/m1", "raw/m2"]


def test_a_table_is_written_again_only_when_its_rows_are_others(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.arrive("m1")
    run.work_off()
    run.projection.refresh(dict, force=True)
    written = []
    write_rows = run.projection.write_rows
    monkeypatch.setattr(run.projection, "write_rows", lambda stage: written.append(stage.name) or write_rows(stage))
    run.projection.refresh(dict, force=True)
    assert written == []
    run.arrive("m2")
    run.dispatcher.fill()
    run.finish()
    run.projection.refresh(dict, force=True)
    assert "first" in written
    assert table(run, "first") == ["raw/m1", "raw/m2"]


def test_the_index_and_the_live_file_follow(run: Any) -> None:
    run.arrive("m1")
    run.work_off()
    run.projection.refresh(lambda: {"state": "running"}, force=True)
    index = Index(run.project)
    index.catch_up()
    counts = index.counts()
    index.close()
    assert counts[run.stage("third").job.name] == {"done": 1}
    assert json.loads((run.project.private / "live.json").read_text())["state"] == "running"


def test_jobs_end_as_what_they_have_given(run: Any) -> None:
    run.arrive("m1", content="bad")
    run.work_off()
    run.projection.close_jobs("finished")
    pipeline = read_pipeline(run.project.root)
    ends = {stage.name: pipeline.job(stage.job.name).status for stage in run.tables.stages}
    assert (ends["first"], ends["second"], ends["third"]) == ("Succeeded", "Failed", "Aborted"), (
        "nothing came to the third"
    )


def test_a_request_of_relion_to_stop_is_heard(run: Any) -> None:
    assert not run.projection.abort_asked()
    (run.project.root / run.stage("second").job.name / ABORT_MARKER).touch()
    assert not run.projection.abort_asked(), "it is not looked for all the time"
    run.projection._abort_pace.next_time = 0.0
    assert run.projection.abort_asked()
    run.projection._abort_pace.next_time = 0.0
    assert not run.projection.abort_asked(), "it is said once"


@pytest.mark.parametrize("lost", ["index.sqlite", "tables"])
def test_all_of_it_is_made_again_from_the_journals(run: Any, lost: str) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    run.projection.refresh(dict, force=True)
    before = table(run, "third")
    if lost == "tables":
        for stage in run.tables.stages:
            shutil.rmtree(run.project.root / stage.job.name)
    else:
        run.projection.index.close()
        (run.project.private / lost).unlink()
    run.writer.close()
    assert rebuild(run.project).records > 0
    assert table(run, "third") == before
    run.open()


def test_what_took_long_is_due_again_after_so_much_longer() -> None:
    moments = iter([0.0, 0.5, 0.6, 0.6 + 2.0, 100.0])
    pace = Pace(1.0)
    clock = pytest.MonkeyPatch()
    clock.setattr("beamside.flow.projection.time.monotonic", lambda: next(moments))
    try:
        assert pace.due()
        pace.done()
        assert pace.next_time == pytest.approx(0.5 + 0.5 / SHARE)
        assert not pace.due()
        pace.done()
        assert pace.due()
    finally:
        clock.undo()


def test_tables_index_and_pipeline_together_keep_to_their_part_of_the_time(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, worked = [0.0], 0.0
    monkeypatch.setattr("beamside.flow.projection.time.monotonic", lambda: now[0])
    projection = run.projection
    paces = [*projection._star_pace.values(), projection._index_pace, projection._pipeline_pace]
    assert len(paces) > len(run.tables.stages)
    while now[0] < 5000.0:
        for pace in paces:
            if pace.due():
                now[0] += 2.0
                worked += 2.0
                pace.done()
        now[0] += 0.5
    first_turns = 2.0 * len(paces)
    assert 0.05 * now[0] < worked <= TOGETHER * now[0] + first_turns
