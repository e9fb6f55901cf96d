"""What a project is asked is carried out or answered, once, whenever it comes and whatever dies meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import ConfigError, InputError, ProjectError
from beamside.flow import control
from beamside.flow.asking import ask
from beamside.flow.commands import Command, ForHolder, command_of, declared, fields_of
from beamside.flow.inbox import Inbox
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.project.journal import read_journal
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "recompute": {"what": "all"},
    "gain": {"keep": True},
    "set": {"values": {"workers": 2}},
    "accept": {"items": ["a"]},
    "reject": {"items": ["a"]},
}
"""Fields with which a command can be sent; the others need none."""

QUESTION = {"state": "asked", "shape": [64, 64], "number": 0, "reference": "", "sentence": "How does it lie?"}


class Heard:
    """Notes what it is asked, and does as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.commands: list[str] = []
        self.error = error

    def __call__(self, command: Command, _who: str) -> str:
        self.commands.append(command.name)
        if self.error is not None:
            raise self.error
        return f"{command.name} is done"


def outcomes(project: Project) -> list[tuple[str, str]]:
    return [(record["command"], record["outcome"]) for record in project.load().commands.values()]


def drop(project: Project, content: Any, name: str = "99999999999999999998-hand.json") -> None:
    """Put a file into the inbox that no version of this program has written."""
    project.inbox.mkdir(parents=True, exist_ok=True)
    (project.inbox / name).write_text(json.dumps(content))


def test_commands_are_taken_in_the_order_in_which_they_were_sent_whatever_the_clock_says(tmp_path: Path) -> None:
    project = Project(tmp_path)
    order = ["pause", "resume", "retry", "pause", "report", "resume"]
    for command in order:
        control.send(project, command)
    heard = Heard()
    with ProjectWriter(project) as writer:
        Inbox(writer).work(heard)
    assert heard.commands == order
    assert control.receive(project) == []


def test_who_asks_is_told_what_became_of_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        inbox = Inbox(writer)

        def answer(heard: Heard) -> control.Outcome | None:
            return ask(project, "retry", pause=lambda _seconds: inbox.work(heard))

        assert answer(Heard()) == control.Outcome("done", "retry is done")
        assert answer(Heard(InputError("Not now."))) == control.Outcome("refused", "Not now.")
        assert answer(Heard(KeyError("use"))) == control.Outcome("refused", "KeyError: 'use'"), (
            "and the session goes on"
        )
        assert ask(project, "retry", seconds=0.0) is None
        assert len(control.receive(project)) == 1, "it still waits for a session that is busy"
    assert {record["who"] for record in project.load().commands.values()} == {control.account()}


def test_what_is_about_a_session_is_taken_back_when_it_reaches_none_and_that_is_told(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        outcome = ask(project, "pause", pause=lambda _seconds: writer.close())
    assert outcome is not None
    assert outcome.kind == "ended"
    assert control.receive(project) == []


def test_what_needs_no_session_is_done_by_the_one_who_asks_behind_what_waited_before(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        writer.finding("k", QUESTION)
    control.send(project, "finish")
    control.send(project, "gain", {"rotate": 90})
    outcome = ask(project, "gain", {"rotate": 180}, seconds=0.0)
    assert outcome is not None
    assert outcome.kind == "refused", "the answer that waited came first"
    assert project.load().findings["k"]["rotate"] == 90
    assert outcomes(project) == [("gain", "done"), ("gain", "refused")]
    assert [message.name for message in control.receive(project)] == ["finish"], "it is for the next session to know"
    assert project.writer_process() is None


def test_what_is_asked_while_a_session_ends_is_done_when_it_has_ended(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        writer.finding("k", QUESTION)
        outcome = ask(project, "gain", {"none": True}, pause=lambda _seconds: writer.close())
    assert outcome is not None
    assert outcome.kind == "done"
    assert project.load().findings["k"]["use"] == "none"


def test_a_session_that_begins_at_this_moment_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, heard = Project(tmp_path), Heard()
    monkeypatch.setattr(Project, "writer_process", lambda _project: None)  # as it was an instant ago
    with ProjectWriter(project) as writer:
        inbox = Inbox(writer)
        assert ask(project, "retry", pause=lambda _: inbox.work(heard)) == control.Outcome("done", "retry is done")
        assert ask(project, "pause", pause=lambda _: inbox.work(heard)) == control.Outcome("done", "pause is done")


class Death(BaseException):
    """A process ends at once."""


class Mortal(Inbox):
    """Dies with the `last` command that it answers: before the answer is in the journal, or before the command is removed."""

    def __init__(self, writer: ProjectWriter, last: int, before: bool) -> None:
        super().__init__(writer)
        self._left, self._before = last, before

    def _answer(self, message: control.Message, outcome: control.Kind, sentence: str) -> None:
        self._left -= 1
        if self._left == 0 and self._before:
            raise Death
        super()._answer(message, outcome, sentence)

    def _remove(self, message: control.Message) -> None:
        if self._left == 0:
            raise Death
        super()._remove(message)


SENDS = st.tuples(st.just("send"), st.sampled_from([*declared(), "unknown"]), st.just(False))
HOLDERS = st.tuples(st.sampled_from(["session", "nobody's"]), st.integers(1, 4), st.booleans())


@settings(max_examples=150, deadline=None)
@given(story=st.lists(SENDS | HOLDERS, max_size=14), unfinished=st.booleans())
def test_every_command_is_answered_exactly_once_whatever_dies_between(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, Any, bool]], unfinished: bool
) -> None:
    project, heard, sent, deaths = Project(tmp_path_factory.mktemp("inbox")), Heard(), dict[str, str](), 0
    for what, which, before in [*story, ("session", 99, False), ("nobody's", 99, False)]:
        if what == "send" and which == "unknown":
            drop(project, {"command": which}, f"{len(sent):020d}-hand.json")
            sent[f"{len(sent):020d}-hand"] = which
            continue
        if what == "send":
            sent[control.send(project, which, FIELDS.get(which))] = which
            continue
        for_another = control.receive(project)
        try:
            with ProjectWriter(project) as writer:
                inbox = Mortal(writer, which, before)
                if what == "session":
                    inbox.begin(for_another, unfinished=unfinished)
                    inbox.work(heard)
                    inbox.work(heard)  # what was behind a stop
                    inbox.close("stopped", heard)
                else:
                    inbox.work_without_session(heard)
        except Death:
            deaths += 1
    records = [record for record, _ in read_journal(project.project_journal) if record["event"] == "command"]
    answered = Counter(record["id"] for record in records)
    waiting = {message.id for message in control.receive(project)}
    assert set(answered.values()) <= {1}
    assert set(answered) | waiting == set(sent)
    assert set(answered) & waiting == set()
    assert waiting == set(), "a session and a holder after it, undisturbed, leave nothing"
    assert all((record["outcome"] == "refused") == (record["command"] == "unknown") for record in records)
    done = Counter(heard.commands)
    assert done.total() <= len(sent) + deaths, "only what dies before the answer is done again"
    for name in ("retry", "recompute", "gain"):
        assert done[name] >= Counter(sent.values())[name], "what is about the project is done, whichever holder sees it"


@pytest.mark.parametrize("unfinished", [True, False])
def test_what_the_session_before_did_not_see_is_answered_or_left_to_this_one(tmp_path: Path, unfinished: bool) -> None:
    project, heard = Project(tmp_path), Heard()
    for command in ["pause", "resume", "finish", "stop", "report", "retry", "gain"]:
        control.send(project, command, FIELDS.get(command))
    with ProjectWriter(project) as writer:
        Inbox(writer).begin(control.receive(project), unfinished=unfinished)
        Inbox(writer).work(heard)
    finish = ["finish"] if unfinished else []
    assert heard.commands == [*finish, "report", "retry", "gain"]
    assert dict(outcomes(project)) == {
        "pause": "ended",
        "resume": "done",
        "finish": "done" if unfinished else "ended",
        "stop": "ended",
        "report": "done",
        "retry": "done",
        "gain": "done",
    }


def test_what_comes_while_a_session_ends_is_answered_or_left_to_the_next_holder(tmp_path: Path) -> None:
    project, heard = Project(tmp_path), Heard()
    with ProjectWriter(project) as writer:
        inbox = Inbox(writer)
        for command in ("stop", "resume", "retry", "gain"):
            control.send(project, command, FIELDS.get(command))
        inbox.work(heard)
        assert heard.commands == ["stop"], "a session that was stopped does not go on for a resume behind it"
        inbox.close("stopped", heard)
    assert heard.commands == ["stop", "gain"]
    assert outcomes(project) == [("stop", "done"), ("resume", "ended"), ("gain", "done")]
    assert [message.name for message in control.receive(project)] == ["retry"]


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["a.json", "1-pause.json", "readme.txt", "b"]),
    content=st.binary(max_size=30) | st.just(b'{"command":7}'),
)
def test_what_is_no_command_is_put_aside_with_the_reason(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    project, heard = Project(tmp_path_factory.mktemp("inbox")), Heard()
    control.send(project, "report")
    (project.inbox / name).write_bytes(content)
    with ProjectWriter(project) as writer:
        Inbox(writer).work(heard)
        [note] = writer.state.notes
    assert heard.commands == ["report"]
    assert (project.inbox / control.ASIDE / name).read_bytes() == content
    assert name in note["message"]
    assert [path.name for path in project.inbox.iterdir()] == [control.ASIDE]


WRONG = [
    ("explode", {}, "There is no command 'explode'"),
    ("puase", {}, "did you mean 'pause'?"),
    ("recompute", {}, "what is missing ('missing' or 'outdated' or 'all')"),
    ("recompute", {"what": "ctf"}, "what is 'ctf': "),
    ("retry", {"all": True}, "it has no field 'all' (its fields: none)"),
    ("gain", {}, "give one answer"),
    ("gain", {"keep": True, "redo": True}, "give one answer"),
    ("gain", {"rotate": 45}, "rotate is 45: "),
    ("gain", {"none": True, "rotate": 90}, "give one answer"),
    ("pause", [], "no fields with values"),
]


@pytest.mark.parametrize(("name", "fields", "sentence"), WRONG)
def test_what_is_not_declared_is_refused_with_a_sentence(tmp_path: Path, name: str, fields: Any, sentence: str) -> None:
    project, heard = Project(tmp_path), Heard()
    if isinstance(fields, dict):
        with pytest.raises(ConfigError) as error:
            control.send(project, name, fields)
        assert sentence in str(error.value)
    drop(project, {"command": name, "details": fields})
    with ProjectWriter(project) as writer:
        Inbox(writer).work(heard)
    assert heard.commands == []
    ((_, record),) = project.load().commands.items()
    assert record["outcome"] == "refused"
    assert sentence in record["sentence"]
    assert control.receive(project) == []
    assert project.load().notes == [], "it is answered, not put aside"


def test_commands_of_earlier_versions_are_understood(tmp_path: Path) -> None:
    project, heard = Project(tmp_path), Heard()
    drop(project, {"command": "pause"}, "01796072750831502000-4711-pause.json")
    gain = {"rotate": 0, "flip": "none", "use": "none"}
    drop(project, {"command": "gain", "details": gain}, "01796072750831502001-0123456789ab.json")
    drop(project, {"command": "recompute", "details": {"what": "all"}}, "01796072750831502002-0123456789ab.json")
    control.send(project, "resume")
    with ProjectWriter(project) as writer:
        Inbox(writer).work(heard)
    assert heard.commands == ["pause", "gain", "recompute", "resume"]
    assert {kind for _, kind in outcomes(project)} == {"done"}


@pytest.mark.parametrize("name", declared())
def test_a_declared_command_says_all_that_the_ways_of_asking_need(name: str) -> None:
    kind = declared()[name]
    assert kind.__doc__
    assert all(field.description for field in kind.model_fields.values())
    command = command_of(name, FIELDS.get(name, {}))
    assert command_of(name, fields_of(command)) == command
    assert isinstance(command, ForHolder) or command.done


def test_an_inbox_that_is_someone_else_s_is_told(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.private.mkdir()
    project.inbox.write_text("")  # no folder can be made here, whoever tries
    with pytest.raises(ProjectError, match=r"cannot be told anything.*inbox"):
        control.send(project, "pause")


@pytest.mark.usefixtures("light_workflow")
def test_an_answer_about_the_gain_that_no_session_read_counts_in_the_next_one(
    session_settings: Settings, write_movie: Callable[..., Path]
) -> None:
    """The question was asked before; its answer came when the session had just ended."""
    write_movie("a")
    session = session_settings()
    assert Session(session, until_empty=True).run() == "finished"
    project = Project(session.root)
    question = {
        "state": "asked",
        "shape": [64, 64],
        "number": 0,
        "reference": "",
        "sentence": "How does it lie?",
    }
    with ProjectWriter(project) as writer:
        writer.finding("k", question)
    control.send(project, "gain", {"rotate": 90, "flip": "none", "use": "multiply"})
    drop(project, {"command": "gain", "details": {"nonsense": 1}})
    assert Session(session, until_empty=True).run() == "finished"
    state = project.load()
    assert state.findings["k"]["state"] == "decided"
    assert state.findings["k"]["rotate"] == 90
    assert outcomes(project) == [("gain", "done"), ("gain", "refused")]
    job = state.job_of_type("extract")
    assert job is not None
    assert {entry.state for entry in job.items.values()} == {ItemState.DONE}
