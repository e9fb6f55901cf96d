"""A kind of source may bring what has to be settled before its items flow, and the command that answers it; the flow knows neither."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from beamside.acquisition import kinds
from beamside.cli.telling import told
from beamside.errors import ConfigError
from beamside.flow.asking import ask
from beamside.flow.checks import Account, NoCheck, Surroundings
from beamside.flow.commands import ForHolder, Holder, command_of, declared, of_sources
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported
from beamside.monitor.report import write_report
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import WAITS_FOR_ANSWER, ItemState


class Permission(NoCheck):
    """Holds texts until a person has allowed them."""

    title = "the permission"

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self.held: list[FileImported] = []

    @property
    def unanswered(self) -> bool:  # type: ignore[override]
        return bool(self.held)

    @property
    def _allowed(self) -> bool:
        return "permission" in self._tables.writer.state.findings

    def take(self, arrival: FileImported) -> None:
        if self._allowed:
            super().take(arrival)
        else:
            self.held.append(arrival)
            self._tables.intake_waits(arrival, "waits for permission")

    def work(self) -> None:
        if self._allowed:
            held, self.held = self.held, []
            for arrival in held:
                super().take(arrival)

    def waits(self) -> list[str]:
        return [f"permission, with {len(self.held)} texts"] if self.held else []


class Allow(ForHolder):
    """Allow texts."""

    name = "allow"
    at_end = True

    def carry_out(self, holder: Holder, who: str) -> str:
        holder.writer.finding("permission", {"state": "decided", "sentence": "Texts are allowed."})
        return "Texts are allowed."


def accounts(records: Any, settings: Mapping[str, Any]) -> list[Account]:
    return [
        Account("Permission", str(settings["name"]), record["sentence"], told=record["sentence"]) for record in records
    ]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_flow_jobs: Callable[[str], Any]) -> SessionSettings:
    jobs = load_flow_jobs("text_jobs")
    jobs.install(monkeypatch.setitem)
    here = ModuleType("permission_of_texts")
    here.Permission, here.Allow, here.accounts = Permission, Allow, accounts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "permission_of_texts", here)
    kind = replace(
        jobs.SOURCE,
        check="permission_of_texts:Permission",
        commands=("permission_of_texts:Allow",),
        account="permission_of_texts:accounts",
    )
    monkeypatch.setitem(kinds.BUILT_IN, "text", kind)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("beamside.jobs.worker._limit_threads", lambda _threads: None)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/one.txt").write_text("a few words\nend\n")
    values = {"target": tmp_path / "out", "name": "run1", "workflow": "words", "data": (str(tmp_path / "texts"),)}
    return SessionSettings.from_flat({**values, "poll_seconds": 0.05, "settle_seconds": 0.0, "executor": "inline"})


def states(project: Project, job: str) -> list[ItemState]:
    found = project.load().job_of_type(job)
    assert found is not None
    return [entry.state for entry in found.items.values()]


def test_items_wait_until_it_is_settled_and_the_session_says_that_it_waits_for_an_answer(
    texts: SessionSettings,
) -> None:
    assert Session(texts, until_empty=True).run() == WAITS_FOR_ANSWER
    project = Project(texts.root)
    assert (states(project, "texts"), states(project, "words")) == ([ItemState.WAITING], [])
    outcome = ask(project, "allow")
    assert outcome is not None
    assert (outcome.kind, outcome.sentence) == ("done", "Texts are allowed.")
    assert Session(texts, until_empty=True).run() == "finished"
    assert states(project, "words") == [ItemState.DONE]
    assert read_status(project).gain == ("Texts are allowed.",)
    assert "<h2>Permission</h2>" in write_report(project).read_text()


def test_the_command_of_a_source_is_one_of_the_command_line(texts: SessionSettings) -> None:
    assert Session(texts, until_empty=True).run() == WAITS_FOR_ANSWER
    result = CliRunner().invoke(told("allow"), [str(texts.root)], catch_exceptions=False)
    assert result.output.startswith("Texts are allowed.")


def test_a_source_whose_commands_cannot_be_loaded_takes_none_from_the_others(
    texts: SessionSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(kinds.BUILT_IN["text"], commands=("no_such_module:Allow",))
    monkeypatch.setitem(kinds.BUILT_IN, "text", broken)
    assert "gain" in of_sources()
    assert "no_such_module" in caplog.text
    with pytest.raises(ConfigError, match="There is no command 'allow'"):
        command_of("allow", {})


def test_no_source_takes_the_place_of_a_command_that_every_project_knows(
    texts: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Allow, "name", "stop")
    assert declared()["stop"] is not Allow


def test_a_check_that_cannot_be_loaded_is_told_before_anything_is_taken_in(
    texts: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kinds.BUILT_IN, "text", replace(kinds.BUILT_IN["text"], check="permission_of_texts:Nothing"))
    with pytest.raises(ConfigError, match="has no function 'Nothing'"):
        Session(texts, until_empty=True).run()
    assert not list(Project(texts.root).raw.glob("*"))
