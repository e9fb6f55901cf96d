"""What a person sees of a session while it runs: a live table in a terminal, plain lines anywhere else."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Self

import click
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from beamside.cli.output import console
from beamside.cli.root import error_sentence
from beamside.errors import BeamsideError
from beamside.monitor.at_work import at_work_lines
from beamside.monitor.report_text import clock, duration, volume
from beamside.monitor.status import ProblemStatus, SessionStatus, StageStatus, read_status
from beamside.project.project import Project
from beamside.project.records import WAITS_FOR_ANSWER

TERMINAL_SECONDS = 1.0
PLAIN_SECONDS = 5.0
VALUES_SHOWN = 4
WIDE = 120
"""Columns from which the last values have room beside the numbers."""
STEP_WIDTH = 22
"""So much of a step's title is always shown: its label is at its end. It leaves room for the numbers in 80 columns."""
FAILURES_SHOWN = 3
OVER_SHOWN = 3
STATE_COLOURS = {
    "running": "green",
    "finishing": "green",
    "finished": "green",
    "paused": "yellow",
    "waiting for disk space": "red",
    WAITS_FOR_ANSWER: "yellow",
    "failed": "red",
    "dead": "red",
    "not responding": "red",
}
SEVERITY_COLOURS = {"error": "red", "warning": "yellow", "info": "dim"}
EXIT_CODES = {"": 0, "down": 3, "error": 4, "question": 5}
"""Exit code of ``session status`` by what a session needs a person for; 1 and 2 are those of a command that fails."""


def headline(status: SessionStatus) -> str:
    """Return one line about the whole session: its state, backlog and rates."""
    parts = [f"{status.name}: {status.state}"]
    if status.waiting_at_source:
        parts.append(f"{_count(status.waiting_at_source, 'file')} at the source")
    parts.append(f"backlog {status.backlog}")
    if status.copied_bytes_per_second:
        parts.append(f"copying at {status.copied_bytes_per_second / 1e6:.0f} MB/s")
    if status.has_particles:
        parts.append(_count(status.particles, "particle"))
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def stage_words(stage: StageStatus) -> str:
    """Return one stage in words, for plain lines: "Motion correction 12 done, 1 failed (540/h; Total motion 4.2 Å)"."""
    counts = [f"{stage.done} done"]
    for word in ("running", "waiting", "failed", "rejected"):
        number = getattr(stage, word)
        if number:
            counts.append(f"{number} {word}")
    if stage.held:
        counts.append(f"{stage.held} held back")
    facts = [f"{stage.per_hour:.0f}/h"] if stage.per_hour else []
    facts += [f"{value.label} {value.text} {value.unit}".strip() for value in stage.last[:1]]
    words = f"{stage.title} {', '.join(counts)}"
    return f"{words} ({'; '.join(facts)})" if facts else words


def plain_lines(status: SessionStatus) -> list[str]:
    """Return the status as lines without colours or cursor movements, for logs and pipes."""
    moment = time.strftime("%H:%M:%S")
    stages = " | ".join(stage_words(stage) for stage in status.stages if stage.total)
    return [f"{moment} {headline(status)}", *([f"{moment}   {stages}"] if stages else [])]


def status_table(status: SessionStatus, width: int) -> Group:
    """Return the status for a terminal of `width` columns; in a narrow one the last values go below the table."""
    colour = STATE_COLOURS.get(status.state, "cyan")
    head = Text.from_markup(f"[bold]{escape(status.name)}[/bold]  [{colour}]{escape(status.state)}[/{colour}]")
    if status.pid:
        head.append(f"  process {status.pid}", style="dim")
    facts = headline(status).split(", ", 1)[-1]
    wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1) if wide else (0, 1, 0, 0))
    held = ("held back",) if any(stage.held for stage in status.stages) else ()
    for heading in ("Step", "waiting", "running", "done", *held, "rejected", "failed", "per hour"):
        titles = [len(stage.title) for stage in status.stages] if heading == "Step" else []
        table.add_column(
            heading,
            justify="left" if heading == "Step" else "right",
            no_wrap=True,
            min_width=max(len(heading), min(max(titles, default=0), STEP_WIDTH)),
        )
    if wide:
        table.add_column("last values", no_wrap=True, overflow="ellipsis", style="cyan")
    for stage in status.stages:
        table.add_row(*_stage_row(stage, held=bool(held)), *([_last_values(stage)] if wide else []))
    below = [] if wide else [_values_line(stage) for stage in status.stages if stage.last]
    gain = [Text(line, style="dim", overflow="fold") for line in (*status.gain, *optics_lines(status.optics))]
    first = [Text(line, style=style, overflow="fold") for line, style in attention_lines(status)]
    later = [Text(line, style="dim", overflow="fold") for line in (*over_lines(status), *signs(status))]
    failures = [Text(line, style="yellow", overflow="fold") for line in failure_lines(status)]
    at_work = [Text(line, style="dim", overflow="fold") for line in at_work_lines(status.at_work)]
    return Group(head, Text(facts, style="dim"), *first, table, *below, *at_work, *gain, *failures, *later)


def optics_lines(optics: Mapping[str, int]) -> list[str]:
    """Return how many files each optics group has, in a line; none where there are no groups."""
    return [f"Optics groups: {', '.join(f'{name} {number}' for name, number in optics.items())}"] if optics else []


def _stage_row(stage: StageStatus, *, held: bool) -> list[str]:
    words = ("waiting", "running", "done", *(("held",) if held else ()), "rejected")
    numbers = [str(getattr(stage, word) or "·") for word in words]
    failed = f"[red]{stage.failed}[/red]" if stage.failed else "·"
    return [stage.title, *numbers, failed, f"{stage.per_hour:.0f}" if stage.per_hour else "·"]


def _last_values(stage: StageStatus) -> str:
    return escape(", ".join(f"{value.label} {value.text} {value.unit}".strip() for value in stage.last[:VALUES_SHOWN]))


def _values_line(stage: StageStatus) -> Text:
    text = Text.from_markup(f"{stage.title}: [cyan]{_last_values(stage)}[/cyan]", overflow="ellipsis")
    text.no_wrap = True
    return text


def attention_lines(status: SessionStatus) -> list[tuple[str, str]]:
    """Return (line, style) of what a person should know first: why a session failed, errors, questions, warnings, what it waits for."""
    # why a session failed is at times a problem, too
    told = any(problem.text == status.message for problem in status.problems)
    lines = [(status.message, "red")] if status.message and not told else []
    by_severity = {
        severity: [(problem_line(problem), colour) for problem in status.problems if problem.severity == severity]
        for severity, colour in SEVERITY_COLOURS.items()
    }
    lines += by_severity["error"]
    lines += [(question, "yellow") for question in status.questions]
    lines += by_severity["warning"] + by_severity["info"]
    return lines + [(f"waits for {what}", "cyan") for what in status.waits]


def problem_line(problem: ProblemStatus) -> str:
    """Return a problem in one line: "error since 2026-11-30 20:54:10: The folder /camera cannot be found ..."."""
    return f"{problem.severity} since {clock(problem.since)}: {problem.text}"


def over_lines(status: SessionStatus) -> list[str]:
    """Return what has ended lately, the newest last."""
    return [
        f"over since {clock(problem.over)} (it lasted {duration(problem.over - problem.since)}): {problem.text}"
        for problem in status.over[-OVER_SHOWN:]
    ]


def failure_lines(status: SessionStatus) -> list[str]:
    """Return the items that failed, were rejected or are held back, by reason, and how many more there are."""
    shown = status.failures[:FAILURES_SHOWN]
    hidden = sum(group.count for group in status.failures[FAILURES_SHOWN:])
    lines = [group.text() for group in shown]
    lines += [f"and {hidden} more for other reasons: see the report"] if hidden else []
    more = sum(group.count for group in status.held_back[FAILURES_SHOWN:])
    lines += [group.text() for group in status.held_back[:FAILURES_SHOWN]]
    return [*lines, f"and {more} more are held back for other reasons: see the report"] if more else lines


def signs(status: SessionStatus) -> list[str]:
    """Return the line that says how alive the session is: its last sign of life, the newest file and result, free disk space."""
    ages = (
        ("last sign of life", status.sign_of_life_age if status.pid or status.state == "dead" else -1.0),
        ("newest file", status.newest_file_age),
        ("newest result", status.newest_result_age),
    )
    parts = [f"{what} {duration(seconds)} ago" for what, seconds in ages if seconds >= 0]
    if status.free_bytes >= 0:
        parts.append(f"{volume(status.free_bytes / 1e9)} free")
    return [", ".join(parts)] if parts else []


def status_json(status: SessionStatus) -> str:
    """Return the status as JSON."""
    return json.dumps({**asdict(status), "attention": status.attention()}, indent=1, default=str)


def exit_code(status: SessionStatus) -> int:
    """Return the exit code that tells a script whether a session needs a person, and why."""
    return EXIT_CODES[status.attention()]


def print_status(status: SessionStatus) -> None:
    """Print the status once."""
    terminal = console()
    terminal.print(status_table(status, terminal.width))


def list_row(project: Project) -> list[str]:
    """Return a session's row in the list of sessions."""
    status = read_status(project)
    files = next((stage.total for stage in status.stages), 0)
    failed = sum(stage.failed for stage in status.stages)
    colour = STATE_COLOURS.get(status.state, "cyan")
    state = f"[{colour}]{status.state}[/{colour}]"
    if status.questions and status.state != WAITS_FOR_ANSWER:
        state += f", {WAITS_FOR_ANSWER}"
    return [escape(status.name), state, str(files), str(failed), escape(status.root)]


def list_rows(projects: Iterable[Project], *, running: bool = False) -> tuple[list[list[str]], list[str]]:
    """Return the rows of the list of sessions, and a sentence for each project that cannot be read; it does not hide the others.

    With `running`, only sessions that run are listed.
    """
    rows: list[list[str]] = []
    problems: list[str] = []
    for project in projects:
        try:
            if not running or project.writer_process() is not None:
                rows.append(list_row(project))
        except Exception as error:  # whatever one project has come to, the others are listed
            name = f"{project.root.parent.name}/{project.root.name}"
            rows.append([escape(name), "[red]unreadable[/red]", "", "", escape(str(project.root))])
            reason = (
                error_sentence(error)
                if isinstance(error, BeamsideError | OSError)
                else f"{type(error).__name__}: {error}"
            )
            problems.append(f"{name} cannot be read: {reason}")
    return rows, problems


class Watching:
    """Shows a session's progress from a thread, between ``with`` and the end of the block.

    Parameters
    ----------
    project : the session's project
    note : called for each display; a line of its own, such as what a simulated microscope does
    """

    def __init__(self, project: Project, note: Callable[[], str] | None = None) -> None:
        self.project = project
        self._note = note or (lambda: "")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        show(self.project, self._end.is_set, pause=self._end.wait, note=self._note)


def show(
    project: Project,
    ended: Callable[[], bool],
    *,
    pause: Callable[[float], object] = time.sleep,
    note: Callable[[], str] = lambda: "",
) -> None:
    """Show progress until `ended` is true, and then once more."""
    (_show_live if sys.stdout.isatty() else _show_plain)(project, ended, pause, note)


def _show_plain(
    project: Project, ended: Callable[[], bool], pause: Callable[[float], object], note: Callable[[], str]
) -> None:
    last: list[str] = []
    last_note = ""
    told: dict[str, int] = {}
    while True:
        over = ended()
        if project.exists:
            status = read_status(project)
            lines = plain_lines(status)
            # the same numbers again say nothing; the time at the beginning of each line does not count
            if [line[9:] for line in lines] != last:
                last = [line[9:] for line in lines]
                click.echo("\n".join(lines))
            for line in news(status, told):
                click.echo(f"  {line}")
        if note() != last_note:
            last_note = note()
            click.echo(f"  {last_note}")
        if over:
            return
        _pause_until(ended, pause, PLAIN_SECONDS if project.exists else TERMINAL_SECONDS)


def news(status: SessionStatus, told: dict[str, int]) -> list[str]:
    """Return what plain output has not said yet; `told` keeps what it has, with the numbers it gave.

    A group is said again when it is ten times as large; what has ended is said once.
    """
    sayings = [(line, line, 1) for line in (*status.gain, status.message, *status.questions) if line]
    sayings += [("optics", line, sum(status.optics.values())) for line in optics_lines(status.optics)]
    sayings += [
        (f"{each.key} {each.since} {each.severity}", problem_line(each), each.count) for each in status.problems
    ]
    sayings += [
        (f"{each.key} {each.since} over", f"over: {each.text}", 1)
        for each in status.over
        if any(key.startswith(f"{each.key} {each.since} ") for key in told)
    ]
    sayings += [(f"{each.title} {each.state} {each.first}", each.text(), each.count) for each in status.failures]
    lines = []
    for key, line, count in sayings:
        if key not in told or count >= 10 * told[key]:
            told[key] = count
            lines.append(line)
    return lines


def _show_live(
    project: Project, ended: Callable[[], bool], pause: Callable[[float], object], note: Callable[[], str]
) -> None:
    terminal = console()
    with Live(console=terminal, auto_refresh=False, transient=False) as live:
        while True:
            over = ended()
            if project.exists:
                live.update(
                    Group(status_table(read_status(project), terminal.width), Text(note(), style="dim")), refresh=True
                )
            if over:
                return
            _pause_until(ended, pause, TERMINAL_SECONDS)


def _pause_until(ended: Callable[[], bool], pause: Callable[[float], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ended() and time.monotonic() < end:
        pause(min(0.25, seconds))


def follow(project: Project) -> SessionStatus:
    """Show progress until the session has ended; returns the last status."""
    show(project, lambda: project.writer_process() is None)
    return read_status(project)
