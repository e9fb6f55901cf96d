"""``beamside demo``: a simulated microscope, a session that watches its camera, and the results beside the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click
from rich.table import Table

from beamside.cli.output import console
from beamside.cli.progress import show
from beamside.cli.resolution import Resolved, resolve_session
from beamside.cli.root import EXIT_INTERRUPTED
from beamside.cli.session_settings import keep_origins
from beamside.cli.telling import wait_until_ended
from beamside.errors import BeamsideError
from beamside.flow import control
from beamside.flow.start import prepare, session_command, start_background
from beamside.monitor.status import SessionStatus, read_status
from beamside.project.project import Project

PIXEL_SIZE, VOLTAGE, DOSE, FRAMES = 1.3, 300.0, 1.0, 24
DIAMETERS = "130:190"
"""Å: the specimen is a barrel of 145 by 150 Å, whose diagonal is 188 Å."""
CLASSES, CLASS_MIN = 16, 400
GAIN_SECONDS = 60.0
"""How long the microscope may take until its gain reference is there."""
MOVIE_SECONDS = 300.0
"""How long the session waits for the first movie before it starts without one."""
MOVIES = "*_Fractions.tiff"


@dataclass(frozen=True)
class Places:
    """Where the demo keeps its files."""

    output: Path

    @property
    def camera(self) -> Path:
        """What the microscope writes."""
        return self.output / "camera"

    @property
    def truth(self) -> Path:
        """What is true about each movie; the session never sees it."""
        return self.output / "truth"

    @property
    def log(self) -> Path:
        """What the microscope says."""
        return self.output / "microscope.log"


@click.command()
@click.option("--movies", default=16, show_default=True, type=click.IntRange(1, 10000), help="Number of movies.")
@click.option(
    "--size",
    default=1536,
    show_default=True,
    type=click.IntRange(512, 8192),
    help="Width and height of a movie in pixels.",
)
@click.option("--rate", default=15.0, show_default=True, type=click.FloatRange(0.1, 600), help="Movies per minute.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Another seed gives other movies.")
@click.option(
    "--output",
    default=Path("beamside-demo"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept; a demo that is there already is continued.",
)
def demo(movies: int, size: int, rate: float, seed: int, output: Path) -> int:
    """Watch a simulated microscope being processed.

    A microscope, simulated by a process of its own, writes movies to a camera folder; a session takes them in, corrects, picks and classifies them.
    It ends by itself, with the results beside the truth. Run it again on the same output, and it goes on where it was.
    """
    places = Places(output.expanduser().absolute())
    places.output.mkdir(parents=True, exist_ok=True)
    with _microscope(places, movies, size, rate, seed) as microscope, _terminated_as_interrupted():
        _wait_for_gain(places, microscope)
        _wait_for_a_movie(places, microscope)
        resolved = _settings(places)
        project = Project(resolved.settings.root)
        try:
            _start(project, resolved)
            _watch(project, microscope, places)
        except KeyboardInterrupt:
            return _interrupted(project)
    return _conclude(project, places, movies, microscope.returncode)


def _settings(places: Places) -> Resolved:
    given = {
        "target": str(places.output),
        "group": "demo",
        "name": "session",
        "data": (f"{places.camera}/{MOVIES}",),
        "gain": str(places.camera / "gain.mrc"),
        "pixel_size": PIXEL_SIZE,
        "voltage": VOLTAGE,
        "dose": DOSE,
        "particle_diameter": DIAMETERS,
        "classes": CLASSES,
        "class_min": CLASS_MIN,
        "poll_seconds": 1.0,
        "settle_seconds": 1.0,
        "report_minutes": 1.0,
    }
    return resolve_session(given, facility=False)


@contextmanager
def _microscope(places: Places, movies: int, size: int, rate: float, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the microscope as a process of its own; it never outlives the demo."""
    command = [
        sys.executable,
        "-m",
        "beamside.simulate.microscope",
        "--output",
        str(places.camera),
        "--truth",
        str(places.truth),
    ]
    numbers = {
        "movies": movies,
        "size": size,
        "rate": rate,
        "seed": seed,
        "frames": FRAMES,
        "pixel-size": PIXEL_SIZE,
        "dose": DOSE,
        "voltage": VOLTAGE,
    }
    command += [word for name, value in numbers.items() for word in (f"--{name}", f"{value:g}")]
    with places.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # one thread: on a small computer its threads and those of the workers would wait for each other
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: end both processes in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _wait_for_gain(places: Places, microscope: subprocess.Popen[bytes]) -> None:
    """Wait until the microscope has begun; on an output that is there already it first compares the settings, and may refuse."""
    continues = any(places.truth.glob("*.json"))
    end = time.monotonic() + GAIN_SECONDS
    while not (places.camera / "gain.mrc").exists() or (continues and not _last_line(places.log)):
        if microscope.poll() is not None or time.monotonic() > end:
            break
        time.sleep(0.1)
    if continues:
        with suppress(subprocess.TimeoutExpired):  # a refusal is said just before the process ends
            microscope.wait(timeout=1)
    if microscope.poll() or not (places.camera / "gain.mrc").exists():
        raise BeamsideError(f"the simulated microscope did not begin: {_last_line(places.log) or 'it said nothing'}")


def _wait_for_a_movie(places: Places, microscope: subprocess.Popen[bytes]) -> None:
    """Wait for the first movie, so that a first session does not begin with what it says when it finds nothing."""
    end = time.monotonic() + MOVIE_SECONDS
    if not any(places.camera.glob(MOVIES)):
        click.echo("The simulated microscope takes its first movie.")
    while not any(places.camera.glob(MOVIES)) and microscope.poll() is None and time.monotonic() < end:
        time.sleep(0.1)


def _start(project: Project, resolved: Resolved) -> None:
    """Start the session, or go on with one that a demo has left running."""
    if project.writer_process() is not None:
        click.echo(f"The session {project.root} is running already; the demo goes on with it.")
        return
    prepare(resolved.settings)
    keep_origins(project, resolved)
    process = start_background(project, session_command(project))
    click.echo(f"The session {project.root} runs in process {process}.")
    if any(stage.failed for stage in read_status(project).stages):
        click.echo("What has failed before is tried again.")
        control.send(project, "retry")


def _watch(project: Project, microscope: subprocess.Popen[bytes], places: Places) -> None:
    """Show progress; when the microscope has ended, let the session finish what is there."""
    told_to_finish = False

    def ended() -> bool:
        nonlocal told_to_finish
        if project.writer_process() is None:
            return True
        if microscope.poll() is not None and not told_to_finish:
            told_to_finish = True
            control.send(project, "finish")
        return False

    show(project, ended, note=lambda: _microscope_says(places))


def _interrupted(project: Project) -> int:
    click.echo("beamside: interrupted; the session stops ...", err=True)
    if project.writer_process() is not None:
        control.send(project, "stop")
        wait_until_ended(project, 60)
    click.echo("beamside: the same command goes on where this one was interrupted", err=True)
    return EXIT_INTERRUPTED


def _conclude(project: Project, places: Places, movies: int, microscope_code: int | None) -> int:
    """Print the numbers and paths; returns the exit code: 0 only when everything is accounted for."""
    status = read_status(project)
    problems = list(_problems(status, movies, len(list(places.truth.glob("*.json")))))
    if microscope_code:
        problems.append(f"the simulated microscope ended with exit code {microscope_code}: {_last_line(places.log)}")
    _print_score(project, places)
    click.echo(f"Project  {project.root}")
    click.echo(f"Report   {project.report}")
    for problem in problems:
        click.echo(f"beamside: {problem}", err=True)
    if problems:
        click.echo("beamside: not everything is accounted for; the same command goes on where this one ended", err=True)
        return 1
    click.echo(f"All {movies} movies are accounted for, with {status.particles} particles.")
    return 0


def _problems(status: SessionStatus, movies: int, written: int) -> Iterator[str]:
    if status.state != "finished":
        yield f"the session is {status.state}, not finished{f' ({status.message})' if status.message else ''}"
    if written < movies:
        yield f"only {written} of {movies} movies were written"
    taken = next((stage.total for stage in status.stages), 0)
    if taken < written:
        yield f"{written - taken} movies at the source were not taken in"
    if status.unaccounted():
        left = status.unaccounted()
        yield f"{'1 item is' if left == 1 else f'{left} items are'} neither done nor set aside"
    for stage in status.stages:
        if stage.failed:
            yield f"{stage.title}: {stage.failed} failed"
    for group in status.failures[:5]:
        yield group.text()


def _print_score(project: Project, places: Places) -> None:
    from beamside.cli.demo_score import score_project

    lines = score_project(project, places.truth).lines()
    if not lines:
        return
    table = Table(box=None, pad_edge=False, title="Results beside the truth", title_justify="left")
    for heading in ("", "result", "asked for", ""):
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(
            line.what, line.result, line.asked, "[green]reached[/green]" if line.reached else "[red]missed[/red]"
        )
    console().print(table)


def _microscope_says(places: Places) -> str:
    line = _last_line(places.log)
    return f"microscope: {line}" if line else ""


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else ""
