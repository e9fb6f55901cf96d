"""Rules: read against what job types declare, and a gate on what was measured that recomputes nothing and is undone by the opposite change."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.flow import workflow
from beamside.flow.cost import cost_in
from beamside.flow.rules import parse_rule, rules_in, written_rules
from beamside.flow.settings import SessionSettings
from beamside.flow.verdicts import give_word
from beamside.flow.workflow import find_workflow, parse_workflow
from beamside.jobs import registry
from beamside.jobs.base import Limit, Result
from beamside.parameters import ParameterModel, parameter
from beamside.project.rules import COMPARISONS, Rule

MOVIES = find_workflow("movies")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ctf.ctf_resolution < 6", "ctf.ctf_resolution < 6 Å"),
        ("ctf_resolution<6A", "ctf.ctf_resolution < 6 Å"),
        ("ctf.resolution ≤ 6.50 Å", "ctf.ctf_resolution <= 6.5 Å"),
        (" defocus >= 0.5um ", "ctf.defocus >= 0.5 µm"),
        ("particles > 1e2", "pick.particles > 100"),
        ("import.gigabytes > .1", "import.gigabytes > 0.1 MB"),
    ],
)
def test_a_rule_is_kept_with_its_job_and_its_unit(text: str, kept: str) -> None:
    assert written_rules([text, kept], MOVIES) == (kept,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ctf.ctf_resolutoin < 6", "ctf has no metric 'ctf_resolutoin'; did you mean 'ctf.ctf_resolution'"),
        ("resolutionn < 6", "no job of this session has a metric 'resolutionn'"),
        ("ctff.defocus < 2", "no job 'ctff'; did you mean 'ctf'"),
        ("defocus < 20000 Å", "ctf.defocus is in µm, and not in Å"),
        ("particles > 10 px", "pick.particles has no unit, and not px"),
        ("defocus < two", "is no rule"),
        ("defocus = 2", "is no rule"),
        ("defocus < 1e999", "too large"),
        ("class_resolution < 8", "class2d works in rounds"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=".*".join(map(str, said.split("*")))) as error:
        parse_rule(text, MOVIES)
    assert text in str(error.value)


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_said_to_be_none(text: str) -> None:
    try:
        job, rule = parse_rule(text, MOVIES)
    except ConfigError as error:
        assert repr(text) in str(error)  # noqa: PT017 - most texts are no rules, and some are
    else:
        assert parse_rule(rule.text, MOVIES) == (job, rule)


@given(
    st.floats(-1e6, 1e6, allow_nan=False),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.sampled_from(sorted(COMPARISONS)),
    st.sampled_from(["defocus", "ctf_resolution", "particles"]),
)
def test_a_rule_means_the_same_after_it_was_kept(value: float, limit: float, comparison: str, metric: str) -> None:
    _, rule = parse_rule(f"{metric} {comparison} {limit!r}", MOVIES)
    again = Rule.from_json(json.loads(json.dumps(rule.to_json())))
    assert again == rule
    _, reread = parse_rule(rule.text, MOVIES)
    shown = rule.shown(value)
    if not math.isclose(shown, limit, rel_tol=1e-9):
        assert reread.allows({metric: value}) == rule.allows({metric: value}) == COMPARISONS[comparison](shown, limit)


def test_a_limit_in_the_shown_unit_lets_through_what_is_exactly_at_it() -> None:
    _, rule = parse_rule("defocus <= 1.2 µm", MOVIES)
    assert rule.allows({"defocus": 12000.0})
    assert not rule.allows({"defocus": 12000.1})


def test_what_was_not_measured_is_let_through_and_what_is_no_number_is_not() -> None:
    _, rule = parse_rule("tilt_angle < 20", MOVIES)
    assert rule.allows({})
    assert not rule.allows({"tilt_angle": math.nan})


def test_a_name_that_several_jobs_measure_needs_the_job(toy: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"several jobs measure 'score'; write first\.score or second\.score"):
        parse_rule("score > 3", find_workflow("movies"))


def test_a_workflow_may_bring_rules_and_says_where_one_is_wrong(tmp_path: Path) -> None:
    content = dict(MOVIES.content) | {"gates": ["ctf.resolution < 7"]}
    values: dict[str, Any] = {"target": tmp_path, "name": "n", "data": ("*",), "pixel_size": 1, "voltage": 300}
    found = SessionSettings.from_flat({**values, "workflow": content})
    assert found.session.gate == ("ctf.ctf_resolution < 7 Å",)
    found = SessionSettings.from_flat({**values, "workflow": content, "gate": ["defocus < 2"]})
    assert found.session.gate == ("ctf.defocus < 2 µm",)
    for wrong in (["ctf.x < 7"], "ctf.resolution < 7", [7]):
        with pytest.raises(ConfigError, match=r"Mine\.json"):
            parse_workflow({**content, "gates": wrong}, place="Mine.json")


def test_a_parameter_that_is_a_limit_is_a_rule(tmp_path: Path) -> None:
    values: dict[str, Any] = {"target": tmp_path, "name": "n", "data": ("*",), "pixel_size": 1, "voltage": 300}
    assert rules_in(SessionSettings.from_flat(values)) == {}
    found = rules_in(SessionSettings.from_flat({**values, "reject_resolution": 6, "gate": ["defocus < 2"]}))
    assert {label: [rule.text for rule in rules] for label, rules in found.items()} == {
        "ctf": ["ctf.defocus < 2 µm", "ctf.ctf_resolution <= 6 Å"]
    }


# -- as a gate ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path, class_min=20, class_increment=20)
    yield run
    run.writer.close()


def rule(run: Any, *rules: str) -> None:
    """Have these rules from now on, as a session takes them."""
    new = SessionSettings.from_flat({**run.settings.to_json(), "gate": rules})
    run.writer.settings(new.to_json())
    run.settings.take_over(new)
    run.tables.take_parameters()


def shown(run: Any, job: str) -> list[str]:
    return [row.item.name[4:] for row in run.stage(job).rows()]


def consider(run: Any, *, final: bool = False) -> list[list[str]]:
    run.rounds.consider(final=final)
    made = [
        [name[4:] for name in task["members"]["names"]] for task, _ in run.hands.tasks if task["type_name"] == "class2d"
    ]
    run.work_off()
    return made


def test_a_rule_holds_back_what_breaks_it_and_lets_it_through_again_without_computing(run: Any) -> None:
    run.arrive("m1", content="s20")
    run.arrive("m2", content="s80")
    run.arrive("m3")
    run.work_off()
    before = run.table()
    rule(run, "second.score > 50 %")
    assert [shown(run, job) for job in ("first", "second", "third")] == [
        ["m1", "m2", "m3"],
        ["m2", "m3"],
        ["m2", "m3"],
    ]
    run.dispatcher.fill()
    run.reopen()
    run.dispatcher.fill()
    assert run.given() == []
    assert shown(run, "third") == ["m2", "m3"], "the rule is in the project"
    rule(run)
    run.dispatcher.fill()
    assert run.given() == []
    assert shown(run, "third") == ["m1", "m2", "m3"]
    assert run.table() == before


def test_what_breaks_a_rule_goes_no_further_and_follows_when_the_rule_changes(run: Any) -> None:
    rule(run, "first.score > 50")
    run.arrive("m1", content="s20")
    run.work_off()
    assert run.states("m1") == ["done", "done"]
    assert all(stage.settled() for stage in run.tables.stages)
    rule(run, "first.score > 10")
    run.work_off()
    assert run.states("m1") == ["done"] * 4


def test_a_persons_word_outranks_a_rule_in_both_directions(run: Any) -> None:
    rule(run, "first.score > 50")
    run.arrive("m1", content="s20")
    run.arrive("m2", content="s80")
    run.work_off()
    give_word(run.writer, "accept", ["m1"], "first", "ana")
    give_word(run.writer, "reject", ["m2"], "first", "ana")
    run.work_off()
    assert shown(run, "third") == ["m1"]
    give_word(run.writer, "none", ["m1", "m2"], "first", "ana")
    run.work_off()
    assert shown(run, "third") == ["m2"]


def test_another_result_is_judged_when_it_comes(run: Any) -> None:
    rule(run, "first.score > 50")
    run.arrive("m1", content="s80")
    run.work_off()
    run.arrive("m1", content="s20")
    run.work_off()
    assert shown(run, "third") == []
    run.arrive("m1", content="s70")
    run.work_off()
    assert shown(run, "third") == ["m1"]
    assert run.entry("third", "m1").result["values"]["of"] == "s70"


def test_what_had_not_begun_when_a_result_broke_a_rule_begins_with_one_that_keeps_to_it(run: Any) -> None:
    run.arrive("m1", content="s80")
    run.dispatcher.fill()
    run.finish()
    run.dispatcher.fill()
    rule(run, "first.score > 90")
    run.work_off()
    assert run.states("m1") == ["done", "done", "done"]
    run.tables.redo(run.stage("first"), "raw/m1", "asked for")
    run.dispatcher.fill()
    task = run.hands.tasks[0][0]
    result = {"metrics": {"score": 0.95}, "outputs": {}, "values": {"of": "s80"}, "rejected": "", "version": "1"}
    run.finish(0, {"result": result, "reason": "", "permanent": False, "log": "", "seconds": 1.0})
    run.work_off()
    assert task["label"] == "first"
    assert run.states("m1") == ["done"] * 4


def test_a_round_is_made_without_what_breaks_a_rule_and_again_when_that_comes_back(run: Any) -> None:
    for name, score in {"m1": 20, "m2": 30, "m3": 80, "m4": 90}.items():
        run.arrive(name, content=f"s{score}")
    run.work_off()
    assert consider(run) == [["m1", "m2", "m3", "m4"]]
    consider(run)
    rule(run, "second.score >= 50")
    assert consider(run) == [["m3", "m4"]]
    consider(run)
    rule(run)
    assert consider(run) == [["m1", "m2", "m3", "m4"]]


RULES = ["first.score > 50", "second.score < 80", "third.score > 10", "import.gigabytes > 1"]
STEP = st.one_of(
    st.tuples(st.just("rule"), st.lists(st.sampled_from(RULES), max_size=2)),
    st.tuples(
        st.just("say"),
        st.tuples(
            st.sampled_from(["accept", "reject", "none"]),
            st.sampled_from(["m1", "m2", "m3"]),
            st.sampled_from(["import", "first", "second"]),
        ),
    ),
    st.tuples(st.sampled_from(["fill", "finish", "reopen", "rounds"]), st.none()),
)


def follow(run: Any, what: str, how: Any) -> None:
    if what == "rule":
        rule(run, *how)
    elif what == "say" and run.stage(how[2]).entry(f"raw/{how[1]}"):
        give_word(run.writer, how[0], [f"raw/{how[1]}"], how[2], "ana")
    elif what == "fill":
        run.dispatcher.fill()
    elif what == "finish" and run.hands.tasks:
        run.finish()
    elif what == "reopen":
        run.reopen()
    elif what == "rounds":
        run.rounds.consider(final=False)


def items_of(table: Mapping[str, Any]) -> dict[str, Any]:
    return {job: found for job, found in table.items() if job not in ("class2d", "select")}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14))
def test_whatever_rules_and_words_there_were_the_end_is_as_without(
    toy: ModuleType, steps: list[tuple[str, Any]]
) -> None:
    ends = []
    for said in ([], steps):
        with TemporaryDirectory() as folder:
            run = toy.Toy(Path(folder), class_min=10, class_increment=10)
            for name, content in {"m1": "s30", "m2": "s60", "m3": "s90"}.items():
                run.arrive(name, content=content)
            for what, how in said:
                follow(run, what, how)
            for job, item in list(run.writer.state.verdicts):
                give_word(run.writer, "none", [item], job, "ana")
            rule(run)
            run.work_off()
            while run.rounds.consider(final=True):
                run.work_off()
            newest = [list(run.stage(job).job.items.values())[-1].result["values"] for job in ("class2d", "select")]
            tables = [{row.item.name for row in stage.rows()} for stage in run.tables.stages[:4]]
            ends.append((items_of(run.table()), tables, set(newest[0]["of"]), newest[0]["final"], newest[1]["final"]))
            run.writer.close()
    assert ends[0] == ends[1]


# -- a project of a version that rejected by a limit ------------------------------------------------------------------


class Before(ParameterModel):
    """A limit that is in keys."""

    smallest: float = parameter(0.0, "Reject what scores less.", unit="%", ge=0)


class Now(ParameterModel):
    """The same limit, as a rule."""

    smallest: float = parameter(0.0, "Hold back what scores less.", unit="%", ge=0, affects_result=False)


def install_second(toy: ModuleType, monkeypatch: pytest.MonkeyPatch, *, rules: bool) -> None:
    class Second(toy.Second):  # type: ignore[misc, name-defined]
        Parameters = Now if rules else Before
        limits = (Limit("smallest", "score", ">="),) if rules else ()

        def rejected_by_limit(self, result: Result) -> bool:
            return result.rejected.startswith("it scores")

    monkeypatch.setitem(registry.BUILT_IN, "second", Second)
    content = {**workflow.SHIPPED["movies"]}
    monkeypatch.setitem(workflow.SHIPPED, "movies", content)  # another object: what is known of it is looked up anew


def test_a_project_whose_job_rejected_by_a_limit_goes_on_and_computes_nothing(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_second(toy, monkeypatch, rules=False)
    made = toy.Toy(tmp_path, smallest=50)
    made.arrive("m1", content="s20")
    made.arrive("m2", content="s80")
    made.arrive("m3", content="odd")
    made.dispatcher.places.workers = 3
    made.dispatcher.fill()
    for _ in range(3):
        made.finish()
    made.dispatcher.fill()
    number = next(n for n, (task, _) in enumerate(made.hands.tasks) if task["items"][0][0] == "raw/m1")
    outcome = toy.result_of(made.hands.tasks[number][0])
    outcome["result"]["rejected"] = "it scores 20 only"
    made.finish(number, outcome)
    made.work_off()
    rows = {job: shown(made, job) for job in ("first", "second", "third")}
    keys = {job: {name: known[1] for name, known in table.items()} for job, table in made.table().items()}
    assert rows == {"first": ["m1", "m2"], "second": ["m2"], "third": ["m2"]}
    made.writer.close()

    install_second(toy, monkeypatch, rules=True)
    made.settings = toy.settings_in(tmp_path, smallest=50)
    made.open()
    made.dispatcher.fill()
    assert made.given() == []
    assert {job: shown(made, job) for job in rows} == rows
    assert {job: {name: known[1] for name, known in table.items()} for job, table in made.table().items()} == keys
    assert made.entry("second", "m1").state == "done"
    assert made.states("m3") == ["done", "rejected"], "what the job itself rejects stays so"

    new = SessionSettings.from_flat({**made.settings.to_json(), "smallest": 0})
    assert cost_in(new, made.writer.state) == []
    made.settings.take_over(new)
    made.tables.take_parameters()
    made.dispatcher.fill()
    assert made.given() == [("third", "m1")]
    made.work_off()
    assert sorted(shown(made, "third")) == ["m1", "m2"]
    made.reopen()
    made.dispatcher.fill()
    assert made.given() == []
    made.writer.close()
