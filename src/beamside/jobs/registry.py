"""All job types that are known: the built-in ones and those of installed packages (entry point group ``beamside.jobs``)."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from beamside.config import suggestion
from beamside.errors import ConfigError
from beamside.jobs.base import JobType
from beamside.jobs.class2d import Classification2d
from beamside.jobs.ctf import CtfEstimation
from beamside.jobs.extract import Extraction
from beamside.jobs.importing import ImportMicrographs, ImportMovies
from beamside.jobs.join import Joining
from beamside.jobs.motion import MotionCorrection
from beamside.jobs.pick import Picking
from beamside.jobs.select import Selection
from beamside.jobs.triggers import Group, Increments
from beamside.parameters import describe

BUILT_IN: dict[str, type[JobType]] = {
    kind.name: kind
    for kind in (
        ImportMovies,
        ImportMicrographs,
        MotionCorrection,
        CtfEstimation,
        Picking,
        Extraction,
        Joining,
        Classification2d,
        Selection,
    )
}
"""The job types of this package by name, in the order of the work."""


def job_type(name: str) -> JobType:
    """Return the job type of this name; the same object each time.

    Raises
    ------
    ConfigError
        when there is none, or the package that has it cannot be loaded
    """
    if name in BUILT_IN:
        return _made(BUILT_IN[name])
    points = _installed()
    if name not in points:
        hint = suggestion(name, [*BUILT_IN, *points])
        asked = f"{hint} Or is" if hint else "; is"
        raise ConfigError(f"There is no job type {name!r}{asked} the package that provides it installed here?")
    return _loaded(points[name])


def job_types() -> dict[str, JobType]:
    """Return all job types by name, the built-in ones first. One of a package that cannot be loaded is left out: `job_type` says why."""
    found = {name: _made(kind) for name, kind in BUILT_IN.items()}
    for name, point in _installed().items():
        if name not in found:
            try:
                found[name] = _loaded(point)
            except ConfigError:
                continue
    return found


def unusable() -> list[str]:
    """Return a sentence for each job type of an installed package that cannot be used."""
    found = []
    for point in _points():
        if point.name in BUILT_IN:
            found.append(f"The job type {point.name!r} of {point.value} is not used: Beamside has one of this name.")
        elif point != _installed()[point.name]:
            found.append(
                f"The job type {point.name!r} of {point.value} is not used: another package has one of this name."
            )
        else:
            try:
                _loaded(point)
            except ConfigError as error:
                found.append(str(error))
    return found


_MADE: dict[type[JobType], JobType] = {}


def _made(kind: type[JobType]) -> JobType:
    if kind not in _MADE:
        _MADE[kind] = kind()
    return _MADE[kind]


def _points() -> tuple[EntryPoint, ...]:
    return tuple(dict.fromkeys(entry_points(group="beamside.jobs")))  # one that is on the path twice is one


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in _points()}


def _loaded(point: EntryPoint) -> JobType:
    owner = f"The job type {point.name!r} ({point.value})"
    try:
        kind = point.load()
    except Exception as error:  # a package of somebody else may do anything when it is imported
        raise ConfigError(f"{owner} cannot be loaded: {type(error).__name__}: {error}.") from error
    if not (isinstance(kind, type) and issubclass(kind, JobType)):
        raise ConfigError(f"{owner} is not a JobType; name the class in the package's entry point.")
    if not isinstance(getattr(kind, "name", None), str):
        raise ConfigError(f"{owner} has no name; give the class the line name = {point.name!r}.")
    if kind.name != point.name:
        raise ConfigError(f"{owner} calls itself {kind.name!r}; give both the same name.")
    if faults := limit_faults(kind):
        raise ConfigError(f"{owner} has limits that cannot be rules: {'; '.join(faults)}.")
    if faults := trigger_faults(kind):
        raise ConfigError(f"{owner} cannot run as its trigger says: {'; '.join(faults)}.")
    return _made(kind)


def trigger_faults(kind: type[JobType]) -> list[str]:
    """Return what a job type lacks for its trigger: the input, the parameters that the trigger names, and what says which items belong together."""
    trigger, faults = kind.trigger, list[str]()
    together = isinstance(trigger, Group | Increments)
    taking_all = [port.name for port in kind.inputs if port.takes == "all"]
    if together and len(taking_all) != 1:
        faults.append(f'{type(trigger).__name__} needs one input with takes="all", and there are {len(taking_all)}')
    if not together and taking_all:
        faults.append(f'its input {taking_all[0]!r} takes="all", which needs the trigger Group or Increments')
    named = (trigger.expected, trigger.quiet) if isinstance(trigger, Group) else ()
    named = (trigger.start, trigger.step) if isinstance(trigger, Increments) else named
    faults += [f"it has no parameter {name!r}" for name in named if name and name not in kind.Parameters.model_fields]
    if isinstance(trigger, Group) and kind.group_of is JobType.group_of:
        faults.append("it takes groups, and must say with group_of what belongs together")
    return faults


def limit_faults(kind: type[JobType]) -> list[str]:
    """Return what is wrong with the limits that a job type declares."""
    infos, metrics = {info.name: info for info in describe(kind.Parameters)}, {one.name: one for one in kind.metrics}
    faults = []
    for limit in kind.limits:
        info, metric = infos.get(limit.parameter), metrics.get(limit.metric)
        if info is None or metric is None:
            faults.append(
                f"it has no {f'parameter {limit.parameter!r}' if info is None else f'metric {limit.metric!r}'}"
            )
        elif info.affects_result:
            faults.append(f"{limit.parameter} is a rule and changes no result; declare it with affects_result=False")
        elif info.unit != metric.unit:
            faults.append(
                f"{limit.parameter} is in {info.unit or 'no unit'} and {limit.metric} in {metric.unit or 'none'}"
            )
    return faults
