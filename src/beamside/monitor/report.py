"""The report: one HTML file that says everything about a session, needs nothing else, and is made from what jobs declare.

The page is complete without scripts: numbers, tables and pictures are in the HTML. `assets/report.js` draws the plots from the JSON
inside the page. Names and reasons come from files, so they are untrusted text: Jinja escapes them, the JSON has no ``<``, and a content security
policy allows the page's own script only and no request to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from beamside.errors import ProjectError
from beamside.formats.atomic import atomic_path
from beamside.monitor import report_text
from beamside.monitor.job_views import job_views
from beamside.monitor.report_checks import check_views
from beamside.monitor.report_gallery import aggregates_view, gallery_view
from beamside.monitor.report_items import read_items, read_rounds
from beamside.monitor.report_numbers import (
    accounting,
    history,
    metric_tables,
    plot_data,
    present_warnings,
    problem_groups,
    stage_rows,
    tiles,
)
from beamside.monitor.report_pictures import PictureStore
from beamside.monitor.report_settings import automatic_values, facts, parameter_sections, versions
from beamside.monitor.results import status_now
from beamside.monitor.status import SessionStatus, read_accounts
from beamside.project.index import Index
from beamside.project.project import Project
from beamside.project.records import SESSION_ENDS

SHOWN_WARNINGS = 8
"""So many of the newest warnings are shown at once; all of them are in the history."""

ENDED = (*SESSION_ENDS, "dead", "new")


def write_report(project: Project, output: Path | None = None) -> Path:
    """Write the report of a project and return its path.

    Parameters
    ----------
    project : its session may be running; it is not disturbed
    output : the file to write; ``report.html`` in the project by default

    Raises
    ------
    ProjectError
        when there is no project, or the file cannot be written
    """
    target = output or project.report
    page = render(collect(project.require()))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target, durable=False) as temporary:
            temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ProjectError(
            f"The report {target} cannot be written ({error.strerror}); free space there or change its permissions, "
            "or write it to another place with --output FILE."
        ) from error
    return target


def collect(project: Project) -> dict[str, Any]:
    """Return everything that the page shows, by the names that the template uses."""
    status = status_now(project)
    index = Index(project)
    try:
        index.catch_up()
        return _collect(project, status, index)
    finally:
        index.close()


def _collect(project: Project, status: SessionStatus, index: Index) -> dict[str, Any]:
    settings = index.settings()
    kinds = job_views(settings)
    jobs = index.jobs()
    items = read_items(index, kinds)
    rounds = {kind.name: read_rounds(index, jobs[kind.name]) for kind in kinds if kind.aggregate and kind.name in jobs}
    store = PictureStore(project)
    gallery = gallery_view(items, kinds, store)
    aggregates = aggregates_view(kinds, rounds, store)
    checks = check_views(read_accounts(index), store)
    store.forget_unused()
    happened = history(index)
    groups = problem_groups(items, kinds, rounds)
    return {
        "status": status,
        "running": status.state not in ENDED,
        "written": report_text.moment(time.time()),
        "facts": facts(index, status, settings),
        "tiles": tiles(status, kinds, items, rounds),
        "accounting": accounting(items, status),
        "problems": groups,
        "numbers": {item.name: number for number, item in enumerate(items)},
        "history": happened,
        "warnings": present_warnings(happened)[-SHOWN_WARNINGS:],
        "stages": stage_rows(status, index),
        "metrics": metric_tables(items, kinds),
        "gallery": gallery,
        "aggregates": aggregates,
        "checks": checks,
        "sections": parameter_sections(settings, automatic_values(settings, kinds, index) if settings else {}),
        "versions": versions(project, index),
        "plots": {**plot_data(items, kinds, index), "cards": [card.number for card in gallery.cards]},
    }


def render(content: dict[str, Any]) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("beamside.monitor", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        count=report_text.count, plural=report_text.plural, clock=report_text.clock, duration=report_text.duration
    )
    assets = files("beamside.monitor") / "assets"
    script = (assets / "report.js").read_text(encoding="utf-8")
    style = (assets / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        **content,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        data=script_safe_json(content["plots"]),
        host=os.uname().nodename,
    )


def script_safe_json(value: Any) -> Markup:
    """Return JSON that can stand inside a ``<script>`` element: it has no ``<``, ``>`` or ``&`` that could end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)
