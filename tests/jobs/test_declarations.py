"""What job types declare is complete, consistent, and light to import."""

import subprocess
import sys

import pytest

from beamside.flow.settings import all_parameters
from beamside.jobs.base import JobType
from beamside.jobs.registry import job_types
from beamside.parameters import describe

TYPES = list(job_types().values())


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: type(kind).__name__)
def test_every_parameter_and_metric_is_described(kind: JobType) -> None:
    for info in describe(kind.Parameters):
        assert info.field.description
        assert info.field.description.endswith(".")
    names = [metric.name for metric in kind.metrics]
    assert len(names) == len(set(names))


def test_no_two_parameters_of_a_session_have_the_same_name_or_flag() -> None:
    names = [info.name for _, info in all_parameters()]
    flags = [info.flag for _, info in all_parameters()]
    assert len(names) == len(set(names))
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("module", ["beamside.cli.main", "beamside.cli.run_session", "beamside.monitor.status"])
def test_the_session_and_the_command_line_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
