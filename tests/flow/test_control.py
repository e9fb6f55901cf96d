"""What a session is asked is carried out or answered, whenever it comes and whatever dies meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import InputError, ProjectError
from beamside.flow import control
from beamside.flow.inbox import Inbox
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]


class Heard:
    """Notes what it is asked, and does as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.commands: list[str] = []
        self.error = error

    def __call__(self, command: control.Command, details: Mapping[str, Any]) -> str:
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        return f"{command} is done"


def outcomes(project: Project) -> list[tuple[str, str]]:
    return [(record["command"], record["outcome"]) for record in project.load().commands.values()]


def test_commands_are_taken_in_the_order_in_which_they_were_sent_whatever_the_clock_says(tmp_path: Path) -> None:
    project = Project(tmp_path)
    order: list[control.Command] = ["pause", "resume", "retry", "pause", "report", "resume"]
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

        def ask(answer: Heard) -> control.Outcome | None:
            return control.ask(project, "retry", pause=lambda _seconds: inbox.work(answer))

        assert ask(Heard()) == control.Outcome("done", "retry is done")
        assert ask(Heard(InputError("Not now."))) == control.Outcome("refused", "Not now.")
        assert ask(Heard(KeyError("use"))) == control.Outcome("refused", "KeyError: 'use'"), "and the session goes on"
        assert control.ask(project, "retry", seconds=0.0) is None
        assert len(control.receive(project)) == 1, "it still waits for a session that is busy"


def test_a_command_that_reaches_no_session_is_taken_back_and_that_is_told(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        outcome = control.ask(project, "pause", pause=lambda _seconds: writer.close())
    assert outcome is not None
    assert outcome.kind == "ended"
    assert control.receive(project) == []


def test_a_command_is_carried_out_once_though_the_session_dies_before_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, heard = Project(tmp_path), Heard()
    control.send(project, "retry")
    with monkeypatch.context() as patched, ProjectWriter(project) as writer:
        patched.setattr(Inbox, "_remove", lambda _inbox, _message: None)
        Inbox(writer).work(heard)
    assert len(control.receive(project)) == 1
    with ProjectWriter(project) as writer:
        Inbox(writer).begin(control.receive(project), unfinished=True)
        Inbox(writer).work(heard)
    assert heard.commands == ["retry"]
    assert control.receive(project) == []


@pytest.mark.parametrize("unfinished", [True, False])
def test_what_the_session_before_did_not_see_is_answered_or_left_to_this_one(tmp_path: Path, unfinished: bool) -> None:
    project, heard = Project(tmp_path), Heard()
    commands: list[control.Command] = ["pause", "resume", "finish", "stop", "report", "retry", "gain"]
    for command in commands:
        control.send(project, command)
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


def test_what_comes_while_a_session_ends_is_answered_or_left_to_the_next_one(tmp_path: Path) -> None:
    project, heard = Project(tmp_path), Heard()
    with ProjectWriter(project) as writer:
        inbox = Inbox(writer)
        for command in ("stop", "resume", "retry", "gain"):
            control.send(project, command)  # type: ignore[arg-type]
        inbox.work(heard)
        assert heard.commands == ["stop"], "a session that was stopped does not go on for a resume behind it"
        inbox.close("stopped", heard)
    assert heard.commands == ["stop", "gain"]
    assert outcomes(project) == [("stop", "done"), ("resume", "ended"), ("gain", "done")]
    assert [message.command for message in control.receive(project)] == ["retry"]


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["a.json", "1-pause.json", "readme.txt", "b"]),
    content=st.binary(max_size=30) | st.just(b'{"command":"explode"}'),
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


def test_commands_of_an_earlier_version_are_understood(tmp_path: Path) -> None:
    project, heard = Project(tmp_path), Heard()
    project.inbox.mkdir(parents=True)
    content = json.dumps({"command": "pause", "details": {}})
    (project.inbox / "01796072750831502000-4711-pause.json").write_text(content)
    control.send(project, "resume")
    with ProjectWriter(project) as writer:
        Inbox(writer).work(heard)
    assert heard.commands == ["pause", "resume"]


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
        writer.gain("k", question)
    control.send(project, "gain", {"rotate": 90, "flip": "none", "use": "multiply"})
    control.send(project, "gain", {"nonsense": 1})
    assert Session(session, until_empty=True).run() == "finished"
    state = project.load()
    assert state.gains["k"]["state"] == "decided"
    assert state.gains["k"]["rotate"] == 90
    assert outcomes(project) == [("gain", "done"), ("gain", "refused")]
    job = state.job_of_type("extract")
    assert job is not None
    assert {entry.state for entry in job.items.values()} == {ItemState.DONE}
