"""What a running session knows about this very moment, in one small file that is replaced every second."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from beamside.project.project import Project


def live_path(project: Project) -> Path:
    """Return where the file is."""
    return project.private / "live.json"


def write_live(project: Project, content: dict[str, Any]) -> None:
    """Replace the file; it is not worth an fsync."""
    path = live_path(project)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def read_live(project: Project) -> dict[str, Any]:
    """Return its content; empty when there is none."""
    try:
        content = json.loads(live_path(project).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
