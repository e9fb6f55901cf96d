"""Loading the work of job types, which their declarations name as "module:function". Only workers do this."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from beamside.errors import ConfigError
from beamside.jobs.base import JobType, Result


def load_work(job_type: JobType) -> Callable[..., Result]:
    """Return the function that does the work of a job type.

    Raises
    ------
    ConfigError
        when there is no such function, or it does not take what it would be given; the message has the job type and what it names
    """
    owner = f"The job type {job_type.name!r}"
    if not job_type.work:
        raise ConfigError(f'{owner} names no work; give the class a line such as work = "package.module:function".')
    function = load_function(job_type.work, owner)
    words = {"round_name": "", "final": False} if job_type.aggregate else {}
    try:
        inspect.signature(function).bind([], None, None, **words)
    except TypeError as error:
        given = "items, parameters, workspace, round_name=..., final=..." if words else "item, parameters, workspace"
        raise ConfigError(
            f"{owner} names {job_type.work!r} as its work, but it cannot be called with ({given}): {error}."
        ) from error
    return function


def load_function(work: str, owner: str) -> Callable[..., Any]:
    """Return the function that `owner`, the beginning of a sentence, names as "module:function"; raises ConfigError when there is none.

    Whatever else goes wrong while the module is loaded, such as a lack of memory, is raised as it is: another attempt may succeed.
    """
    module_name, _, name = work.partition(":")
    named = f"{owner} names {work!r} as its work"
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise ConfigError(f'{named}, but that is not of the form "package.module:function".')
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{named}, but there is no module {error.name!r}; is the package that provides it installed here?"
            ) from error
        raise ConfigError(f"{named}, but its module cannot be loaded here: {error}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{named}, but the module {module_name!r} has no function {name!r}.")
    return function  # type: ignore[no-any-return]
