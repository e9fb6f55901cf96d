"""Starting a session in the background, and what has to be right before it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from beamside.acquisition.reports import Trouble
from beamside.acquisition.scan import Scanner
from beamside.errors import BeamsideError, ConfigError, InputError, ProjectBusyError
from beamside.execution.gpus import chosen_gpus
from beamside.flow.again import DoneAgain
from beamside.flow.cost import cost_of
from beamside.flow.known_projects import register
from beamside.flow.missing import survey
from beamside.flow.opening import is_gone, open_stages
from beamside.flow.settings import SessionSettings
from beamside.flow.sources import check_given
from beamside.flow.stored_settings import store_settings
from beamside.flow.table import INPUTS_CHANGED
from beamside.formats.leftovers import temporary_name
from beamside.project.guard import guard
from beamside.project.journal import read_journal
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES
from beamside.project.relion_recovery import read_pipeline

START_SECONDS = 240.0
"""How long a session may take to say that it runs: it may first wait until it is known that the holder of RELION's lock is dead."""


def prepare(settings: SessionSettings) -> list[str]:
    """Check what can be checked beforehand, make the project's directory, and leave the settings there; returns warnings.

    Raises InputError, ConfigError or ProjectBusyError, each with one sentence.
    """
    project = Project(settings.root)
    _check_writable(project.root)
    guard(project)
    settings = adopt_files(settings)
    holder = project.writer_process()
    if holder is not None:
        raise ProjectBusyError(
            f"The session {project.root} is running already (process {holder.pid} on {holder.host}); "
            "use `beamside session status`, change its settings with `beamside session set`, or stop it first."
        )
    warnings = check_given(settings)
    if settings.execution.device != "auto":
        chosen_gpus(settings.execution.device)
    store_settings(project, settings)
    return [*filter(None, [register(project)]), *warnings, *_source_warnings(settings)]


def adopt_files(settings: SessionSettings) -> SessionSettings:
    """Return `settings` with the files that jobs' parameters name taken into the project; doing it again changes nothing.

    Raises InputError for files that cannot be used, and ConfigError for parameters that do not go with what the workflow connects.
    """
    for job in settings.workflow.jobs:
        if wrong := job.type.contradiction(settings.jobs[job.label], list(job.inputs)):
            raise ConfigError(f"{settings.workflow.title_of(job.label)}: {wrong}.")
    jobs = {job.label: job.type.adopt(settings.jobs[job.label], settings.root) for job in settings.workflow.jobs}
    return settings.model_copy(update={"jobs": jobs})


def recompute_cost(settings: SessionSettings) -> dict[str, int]:
    """Return how many results of each job would be computed again with `settings`, by the job's title."""
    return {cost.title: cost.results for cost in cost_of(settings)}


def state_of_results(project: Project, settings: SessionSettings) -> list[Trouble]:
    """Return what there is to say of a project's results while no session runs, in the words of the session that goes on.

    What it computes again and why, which results lack files or are of earlier versions, and which jobs RELION has deleted.
    """
    state = project.load()
    stages, pipeline = open_stages(settings, state), read_pipeline(project.root)
    for stage in stages:
        stage.gone = is_gone(project.root, stage.job, pipeline, list(state.jobs))
    again = DoneAgain()
    for stage in stages:
        for entry in [] if stage.deleted else stage.job.items.values():
            if entry.state not in FINAL_STATES:
                again.add(stage, entry.name, entry.reason or "the session ended while this was processed")
        for name in stage.stale():
            again.add(stage, name, INPUTS_CHANGED)
    return [*again.troubles(), *survey(project.root, stages, restorable=True)]


def start_background(project: Project, command: list[str]) -> int:
    """Start `command` (the session process of `project`) detached, wait until the session runs, and return its process number.

    Raises BeamsideError with the session's own sentence when it ends before it runs.
    """
    project.private.mkdir(parents=True, exist_ok=True)
    failure = project.private / "start-failure"
    failure.unlink(missing_ok=True)
    with project.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=project.root,
            # UTF-8 whatever the terminal's: what the session and its workers write is read on other machines
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        holder = project.writer_process()
        if holder is not None and holder.pid == process.pid and _says_it_runs(project, process.pid):
            return process.pid
        if process.poll() is not None:
            if process.returncode == 0:
                return process.pid
            raise BeamsideError(
                failure.read_text("utf-8", "replace")
                if failure.exists()
                else f"The session ended at once; see {project.log}."
            )
        time.sleep(0.1)
    raise BeamsideError(f"The session does not say that it runs after {START_SECONDS:g} s; see {project.log}.")


def session_command(project: Project) -> list[str]:
    """Return the command of a session process.

    It runs in the project, where a group may write; -P keeps Python from taking a file that lies there for a module.
    """
    return [sys.executable, "-P", "-m", "beamside.cli.run_session", str(project.root)]


def _says_it_runs(project: Project, pid: int) -> bool:
    """Return True once the session process `pid` has noted that it has started; what earlier sessions noted does not count."""
    records = (record for record, _ in read_journal(project.project_journal, damaged=lambda _: None))
    records = (record for record in records if record.get("event") == "session")
    return any(record["state"] == "started" and record.get("pid") == pid for record in records)


def _check_writable(root: Path) -> None:
    try:
        (root / ".beamside").mkdir(parents=True, exist_ok=True)
        probe = root / ".beamside" / temporary_name("probe")
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"The target {root} cannot be written ({error.strerror}); choose another --target or change its permissions."
        ) from error


def _source_warnings(settings: SessionSettings) -> list[str]:
    kind = settings.source_kind
    scanner = Scanner(settings.acquisition.data, endings=kind.endings, formats=kind.formats)
    found = scanner.scan()
    if found.matched or found.standing:
        return [trouble.sentence for trouble in found.standing]
    return [f"{scanner.nothing_matches()} The session waits for the first one."]
