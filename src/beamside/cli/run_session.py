"""The session process: ``python -m beamside.cli.run_session PROJECT`` with settings that were left in the project."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from beamside.errors import BeamsideError
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.stored_settings import load_settings
from beamside.formats.printable import printable
from beamside.project.project import Project

log = logging.getLogger("beamside.session")

REPORT_SECONDS = 600.0
"""How long the last report may take."""


class ReportProcess:
    """Writes reports in processes of their own, so that the session is never held up and a report's fault never touches it."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None

    def __call__(self, project: Project, final: bool) -> None:
        """Start writing a report; with `final`, wait until it is there."""
        if self._running is not None and self._running.poll() is None:
            if not final:
                return
            self._wait()
        self._running = subprocess.Popen(
            [sys.executable, "-P", "-m", "beamside.cli.main", "report", str(project.root), "--quiet"]
        )
        if final and self._wait() != 0:
            raise BeamsideError(f"`beamside report {project.root}` ended with exit code {self._running.returncode}.")

    def _wait(self) -> int:
        """Wait for the report, but never for ever: the session ends with or without it."""
        assert self._running is not None
        try:
            return self._running.wait(REPORT_SECONDS)
        except subprocess.TimeoutExpired:
            self._running.kill()
            return self._running.wait()


def run_session(settings: SessionSettings, *, until_empty: bool = False) -> str:
    """Run a session in this process until it ends; SIGTERM, SIGINT and SIGHUP stop it, a second one at once."""
    session = Session(settings, write_report=ReportProcess(), until_empty=until_empty)

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        session.state = "stopping"

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    log.info("the session %s begins in process %d", settings.root, os.getpid())
    state = session.run()
    log.info("the session %s", state)
    return state


class Plain(logging.Formatter):
    """Lines that a terminal may show, whatever the names in them are."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable(super().format(record), lines=True)


def configure_log(path: Path | None = None) -> None:
    """Write log lines with the time to the file `path`, or to standard error."""
    handler = (
        logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") if path else logging.StreamHandler()
    )
    handler.setFormatter(Plain("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("parsl").setLevel(logging.WARNING)


def main() -> int:
    """Run the session of the project named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m beamside.cli.run_session")
    parser.add_argument("project", type=Path)
    parser.add_argument("--until-empty", action="store_true", help="end when everything at the source is processed")
    given = parser.parse_args()
    configure_log()
    project = Project(given.project)
    failure = project.private / "start-failure"
    try:
        run_session(load_settings(project), until_empty=given.until_empty)
    except BeamsideError as error:
        failure.write_text(str(error), "utf-8", "backslashreplace")
        log.error("%s", error)
        return 2
    except Exception as error:
        failure.write_text(
            f"The session failed ({type(error).__name__}: {error}); see {project.log}.", "utf-8", "backslashreplace"
        )
        log.exception("the session failed")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Everything is on disk. Ending in the usual way would wait for threads, which may hang when a part of Parsl was killed.
    os._exit(code)
