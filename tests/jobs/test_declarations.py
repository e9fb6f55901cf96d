"""What job types declare is complete, consistent, and light to import."""

import subprocess
import sys

import pytest

from beamside.flow.settings import all_parameters
from beamside.jobs.base import JobType, Limit, Metric
from beamside.jobs.registry import job_types, limit_faults
from beamside.parameters import ParameterModel, describe, parameter

TYPES = list(job_types().values())


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: type(kind).__name__)
def test_every_parameter_and_metric_is_described(kind: JobType) -> None:
    for info in describe(kind.Parameters):
        assert info.field.description
        assert info.field.description.endswith(".")
    names = [metric.name for metric in kind.metrics]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: type(kind).__name__)
def test_limits_are_rules_on_what_is_measured(kind: JobType) -> None:
    assert limit_faults(type(kind)) == []
    for table in kind.published:
        assert f"/{table.file}".endswith(".star")
        assert any(port.kind.files.get(table.role) for port in kind.outputs)


class Limits(ParameterModel):
    """Some that could be limits."""

    good: float = parameter(0.0, "A limit.", unit="Å", affects_result=False)
    counted: float = parameter(0.0, "One that changes results.", unit="Å")
    other: float = parameter(0.0, "One in another unit.", affects_result=False)


@pytest.mark.parametrize(
    ("name", "metric", "fault"),
    [
        ("good", "size", ""),
        ("counted", "size", "affects_result=False"),
        ("other", "size", "other is in no unit and size in Å"),
        ("missing", "size", "no parameter 'missing'"),
        ("good", "missing", "no metric 'missing'"),
    ],
)
def test_what_is_wrong_with_a_limit_is_told(name: str, metric: str, fault: str) -> None:
    class Sized(JobType):
        Parameters, metrics, limits = Limits, (Metric("size", "Size", "Å"),), (Limit(name, metric, "<"),)

    assert fault in "; ".join(limit_faults(Sized))
    assert bool(limit_faults(Sized)) == bool(fault)


def test_no_two_parameters_of_a_session_have_the_same_name_or_flag() -> None:
    names = [info.name for _, info in all_parameters()]
    flags = [info.flag for _, info in all_parameters()]
    assert len(names) == len(set(names))
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("module", ["beamside.cli.main", "beamside.cli.run_session", "beamside.monitor.status"])
def test_the_session_and_the_command_line_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
