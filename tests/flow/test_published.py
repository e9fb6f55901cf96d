"""What a round has published leaves out the particles that are held back, and takes them back, at once and without computing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.flow.projection import Projection, rebuild
from beamside.flow.published import publish
from beamside.flow.settings import SessionSettings
from beamside.flow.stored_settings import store_settings
from beamside.flow.verdicts import give_word
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.jobs.base import Published

TABLE = Published("particles_star", "whole_star", "whole.star", block="particles", column="rlnMicrographName")


class Run:
    """A toy session whose jobs write files: each item has a micrograph, each round of choosing the table of its particles."""

    def __init__(self, toy: ModuleType, folder: Path, *, earlier: bool = False) -> None:
        self.toy, self.earlier = toy, earlier
        self.made = toy.Toy(folder, class_min=10, class_increment=10)
        self.root: Path = self.made.project.root

    def outcome(self, task: Mapping[str, Any]) -> dict[str, Any]:
        outcome: dict[str, Any] = self.toy.result_of(task)
        outputs = outcome["result"]["outputs"]
        if task["type_name"] == "first":
            outputs["micrograph"] = f"made/{Path(task['items'][0][0]).name}.mrc"
            (self.root / "made").mkdir(exist_ok=True)
            (self.root / outputs["micrograph"]).touch()
        elif task["type_name"] == "select":
            of = task["items"][0][1]["class2d"]["values"]["of"]
            shown, whole = f"{task['job']}/particles.star", f"{task['job']}/{TABLE.file}"
            outputs |= {"particles_star": shown} | ({} if self.earlier else {"whole_star": whole})
            rows: list[list[Any]] = [[f"made/{name[4:]}.mrc", number] for name in of for number in range(3)]
            path = self.root / (shown if self.earlier else whole)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_star(path, [StarBlock("particles", ["rlnMicrographName", "rlnNumber"], rows)])
        return outcome

    def work_off(self) -> None:
        self.made.dispatcher.fill()
        while self.made.hands.tasks:
            self.finish()
            self.made.dispatcher.fill()

    def finish(self, job: str = "") -> None:
        """Let the worker that has the first task end, or the first one of this job."""
        tasks = [task for task, _ in self.made.hands.tasks]
        number = next(number for number, task in enumerate(tasks) if job in ("", task["label"]))
        self.made.finish(number, self.outcome(tasks[number]))

    def rounds(self, *, final: bool = False) -> None:
        while self.made.rounds.consider(final=final):
            self.work_off()

    def rule(self, *rules: str) -> None:
        new = SessionSettings.from_flat({**self.made.settings.to_json(), "gate": rules})
        self.made.writer.settings(new.to_json())
        self.made.settings.take_over(new)
        self.made.tables.take_parameters()

    def say(self, word: Any, item: str, job: str = "second") -> None:
        give_word(self.made.writer, word, [f"raw/{item}"], job, "ana")

    @property
    def select(self) -> Any:
        return self.made.stage("select")

    def published(self) -> list[str]:
        """The micrographs of the particles in the table that is shown."""
        publish(self.root, self.select)
        return list(dict.fromkeys(self.shown()))

    def shown(self) -> list[str]:
        return [
            Path(name).stem
            for name in read_star(self.root / self.select.job.name / "particles.star")["particles"].texts(TABLE.column)
        ]

    def whole(self) -> bytes:
        return (self.root / self.select.job.name / TABLE.file).read_bytes()

    def bytes_shown(self) -> bytes:
        return (self.root / self.select.job.name / "particles.star").read_bytes()


@pytest.fixture
def publishing(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(toy.Choose, "published", (TABLE,))
    return toy


@pytest.fixture
def run(publishing: ModuleType, tmp_path: Path) -> Iterator[Run]:
    run = begun(Run(publishing, tmp_path))
    yield run
    run.made.writer.close()


def begun(run: Run) -> Run:
    for name, score in {"m1": 20, "m2": 50, "m3": 80}.items():
        run.made.arrive(name, content=f"s{score}")
    run.work_off()
    run.rounds()
    return run


def test_a_rule_takes_particles_out_of_what_is_published_and_gives_them_back(run: Run) -> None:
    assert run.published() == ["m1", "m2", "m3"]
    assert run.bytes_shown() == run.whole()
    before = run.whole()
    run.rule("second.score > 30")
    assert run.published() == ["m2", "m3"]
    run.rule("second.score > 30", "first.score < 70")
    assert run.published() == ["m2"]
    run.say("accept", "m1")
    assert run.published() == ["m1", "m2"]
    run.say("none", "m1")
    run.rule()
    assert run.published() == ["m1", "m2", "m3"]
    assert run.bytes_shown() == run.whole() == before
    assert run.made.given() == []


def test_what_a_job_rejected_and_a_person_accepted_leaves_when_that_is_taken_back(
    publishing: ModuleType, tmp_path: Path
) -> None:
    run = Run(publishing, tmp_path)
    run.made.arrive("m1", content="odd")
    run.made.arrive("m2", content="s50")
    run.work_off()
    run.say("accept", "m1", "first")
    run.work_off()
    run.rounds(final=True)
    assert sorted(run.published()) == ["m1", "m2"]
    run.say("none", "m1", "first")
    assert run.published() == ["m2"]
    run.say("accept", "m1", "first")
    assert sorted(run.published()) == ["m1", "m2"]
    run.made.writer.close()


def test_what_is_held_back_while_a_round_is_made_is_never_shown(run: Run) -> None:
    run.made.arrive("m4", content="s10")
    run.work_off()
    run.made.rounds.consider(final=False)
    run.finish()
    run.rule("second.score > 15")
    run.made.rounds.consider(final=False)
    assert ("select", "round002") in run.made.given()
    assert "m4" not in run.published(), "the table of the round before"
    run.finish("select")
    assert "m4" not in run.published()
    assert b"m4" in run.whole()


def test_the_session_writes_at_once_what_a_gate_has_changed(run: Run) -> None:
    projection = Projection(run.made.settings, run.made.writer, run.made.tables.stages)
    projection.refresh({}, force=True)
    assert run.shown() == ["m1"] * 3 + ["m2"] * 3 + ["m3"] * 3
    run.rule("second.score > 30")
    projection.refresh({})
    assert run.shown() == ["m2"] * 3 + ["m3"] * 3
    run.say("reject", "m2")
    projection.refresh({})
    assert run.shown() == ["m3"] * 3
    moment = (run.root / run.select.job.name / "particles.star").stat().st_mtime_ns
    projection.refresh({}, force=True)
    assert (run.root / run.select.job.name / "particles.star").stat().st_mtime_ns == moment, "it is not written in vain"


def test_a_round_of_a_version_that_wrote_only_what_is_shown_is_kept_whole(
    publishing: ModuleType, tmp_path: Path
) -> None:
    run = begun(Run(publishing, tmp_path, earlier=True))
    before = run.bytes_shown()
    assert run.published() == ["m1", "m2", "m3"]
    assert not (run.root / run.select.job.name / TABLE.file).exists()
    run.rule("second.score > 30")
    assert run.published() == ["m2", "m3"]
    run.made.reopen()
    assert run.published() == ["m2", "m3"]
    run.rule()
    assert run.published() == ["m1", "m2", "m3"]
    assert run.bytes_shown() == before
    run.made.writer.close()


def test_without_the_whole_table_what_is_shown_stays_and_that_is_told(run: Run) -> None:
    assert len(run.published()) == 3
    (run.root / run.select.job.name / TABLE.file).unlink()
    assert len(run.published()) == 3
    run.rule("second.score > 30")
    with pytest.raises(FileNotFoundError, match="--recompute missing"):
        publish(run.root, run.select)
    assert len(run.shown()) == 9


def test_a_table_that_somebody_has_changed_is_made_again(run: Run) -> None:
    run.published()
    (run.root / run.select.job.name / "particles.star").write_text("RELION's\n")
    run.made.writer.close()
    store_settings(run.made.project, run.made.settings)
    rebuild(run.made.project)
    assert run.bytes_shown() == run.whole()
    run.made.open()


STEP = st.one_of(
    st.tuples(st.just("rule"), st.sampled_from([(), ("first.score > 30",), ("second.score < 70", "third.score > 10")])),
    st.tuples(
        st.just("say"),
        st.tuples(st.sampled_from(["accept", "reject", "none"]), st.sampled_from(["m1", "m2", "m3", "m4"])),
    ),
    st.tuples(st.just("arrive"), st.sampled_from(["m4", "m5"])),
    st.tuples(st.sampled_from(["fill", "finish", "rounds", "reopen", "publish"]), st.none()),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=16))
def test_whatever_happens_only_what_is_let_through_is_shown_and_in_the_end_all(
    publishing: ModuleType, steps: list[tuple[str, Any]]
) -> None:
    with TemporaryDirectory() as folder:
        run = begun(Run(publishing, Path(folder)))
        made = run.made
        for what, how in steps:
            if what == "rule":
                run.rule(*how)
            elif what == "say" and made.stage("second").entry(f"raw/{how[1]}"):
                run.say(*how)
            elif what == "arrive":
                made.arrive(how, content="s40")
            elif what == "fill":
                made.dispatcher.fill()
            elif what == "finish" and made.hands.tasks:
                run.finish()
            elif what == "rounds":
                made.rounds.consider(final=False)
            elif what == "reopen":
                made.reopen()
            elif what == "publish":
                held = {name[4:] for name in made.stage("third").job.items if made.stage("third").is_shut(name)}
                assert held.isdisjoint(run.published())
        for job, item in list(made.writer.state.verdicts):
            give_word(made.writer, "none", [item], job, "ana")
        run.rule()
        run.work_off()
        run.rounds(final=True)
        assert sorted(run.published()) == [Path(name).name for name in sorted(made.stage("third").job.items)]
        assert run.bytes_shown() == run.whole()
        made.writer.close()
