"""How numbers, times and settings are written in the report: always with their unit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from beamside.jobs.base import Metric
from beamside.parameters import ParameterInfo


def moment(seconds: float) -> str:
    """Return a point in time, in local time with its zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds)).strip()


def clock(seconds: float) -> str:
    """Return a point in time without the zone, for long lists under a heading that names it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Return a length of time in the two units that matter: "2 h 14 min", "3 min 20 s", "4.2 s"."""
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def volume(gigabytes: float) -> str:
    """Return an amount of data."""
    if gigabytes >= 1000:
        return f"{gigabytes / 1000:.2f} TB"
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.0f} MB"


def count(number: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{round(number):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(number: int, one: str, many: str = "") -> str:
    """Return "1 file", "2 files"."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def metric_text(metric: Metric, value: float) -> str:
    """Return a stored value of a metric as people read it, with its unit."""
    shown = value * metric.scale
    text = f"{shown:.{metric.digits}f}" if metric.digits else count(shown)
    return f"{text} {metric.unit}".strip()


def metric_heading(metric: Metric) -> str:
    """Return the name of a metric with its unit."""
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def setting_text(value: Any, unit: str = "") -> str:
    """Return the value of a setting with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], ()):
        return "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        joined = " to ".join if unit and len(value) == 2 else ", ".join
        return f"{joined(setting_text(part) for part in value)} {unit}".strip()
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()


def default_of(info: ParameterInfo) -> Any:
    """Return a parameter's default as settings in the journal have it, or None when it has none."""
    default = info.field.get_default(call_default_factory=False)
    return None if default is PydanticUndefined else to_jsonable_python(default)
