"""Keys: a result is valid for its inputs, the parameters that matter, and the version of the algorithm.

A parameter that is not set is in no key. So a job type may get another parameter without making its results old.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beamside.jobs.base import JobType, Optics
from beamside.parameters import ParameterModel, result_parameters

_compact = json.JSONEncoder(separators=(",", ":")).encode


def item_key(job_type: JobType, parameters: ParameterModel, optics: Optics, inputs: Sequence[str]) -> str:
    """Return the key of a result of `job_type` made from results with the keys `inputs`."""
    return key_of(key_settings(job_type, parameters, optics, job_type.version)[0], inputs)


def key_settings(
    job_type: JobType,
    parameters: ParameterModel,
    optics: Optics,
    version: str,
    had: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, ...]:
    """Return what all keys of a job have in common, with a `version` of its algorithm, as JSON.

    The first is how keys are made. The others are how earlier versions of this program made them of the same settings: a result with such a key is
    valid, and keeps it. Limits were in them, with a value that is one of those that the job has `had`.
    """
    common = {
        "type": job_type.name,
        "version": version,
        "optics": optics.used(job_type.optics_used),
    }
    return tuple(
        dict.fromkeys(
            json.dumps({**common, "parameters": taken}, sort_keys=True, separators=(",", ":"))
            for taken in _taken(job_type, parameters, had)
        )
    )


def _taken(job_type: JobType, parameters: ParameterModel, had: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    limits = {limit.parameter for limit in job_type.limits}
    former = [{name: value for name, value in one.items() if name in limits} for one in had] if limits else []
    for taken in (result_parameters(parameters), result_parameters(parameters, with_none=True)):
        yield taken
        yield from ({**taken, **values} for values in former)


def key_of(settings: str, inputs: Sequence[str]) -> str:
    """Return the key of a result with these settings, see `key_settings`, made from results with the keys `inputs`."""
    text = f'{{"inputs":{_compact(list(inputs))},{settings[1:]}'
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def earlier_versions(job_type: JobType) -> list[str]:
    """Return the versions that the algorithm had before, the newest first, as far as they follow from its number: "1" and "2" before "3"."""
    return [str(number) for number in range(int(job_type.version) - 1, 0, -1)] if job_type.version.isdigit() else []
