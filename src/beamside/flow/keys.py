"""Keys: a result is valid for its inputs, the parameters that matter, and the version of the algorithm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from beamside.jobs.base import JobType, Optics
from beamside.parameters import ParameterModel, result_parameters


def item_key(
    job_type: JobType, parameters: ParameterModel, optics: Optics, inputs: Sequence[str], version: str = ""
) -> str:
    """Return the key of a result of `job_type` made from results with the keys `inputs`, by the present `version` of its algorithm or another one."""
    content: dict[str, Any] = {
        "type": job_type.name,
        "version": version or job_type.version,
        "parameters": result_parameters(parameters),
        "optics": {name: getattr(optics, name) for name in job_type.optics_used},
        "inputs": list(inputs),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def earlier_versions(job_type: JobType) -> list[str]:
    """Return the versions that the algorithm had before, the newest first, as far as they follow from its number: "1" and "2" before "3"."""
    return [str(number) for number in range(int(job_type.version) - 1, 0, -1)] if job_type.version.isdigit() else []
