"""Radiation damage filters."""

import math

import pytest
import torch

from beamside.errors import ConfigError
from beamside.imaging.dose import critical_exposure, dose_weights, exposures, weight_norm


def reference_weight(frequency: float, exposure: float) -> float:
    """Grant and Grigorieff 2015 at 300 kV, in double precision."""
    return math.exp(-exposure / (2 * (0.24499 * frequency**-1.6649 + 2.8141)))


@pytest.mark.parametrize("frequency", [0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("exposure", [0.5, 10.0, 60.0])
def test_weights_follow_the_published_formula(frequency: float, exposure: float) -> None:
    weights = dose_weights(torch.tensor([frequency]), torch.tensor([exposure], dtype=torch.float64))
    assert weights.shape == (1, 1)
    assert float(weights) == pytest.approx(reference_weight(frequency, exposure), rel=2e-6)


def test_the_critical_exposure_at_3_angstrom_is_about_4_electrons() -> None:
    assert float(critical_exposure(torch.tensor(1 / 3))) == pytest.approx(4.34, abs=0.01)


def test_lower_voltages_damage_more() -> None:
    frequency = torch.tensor([0.2])
    ratio = critical_exposure(frequency, 200) / critical_exposure(frequency, 300)
    assert float(ratio) == pytest.approx(0.8)
    assert float(critical_exposure(frequency, 100) / critical_exposure(frequency, 300)) == pytest.approx(0.64)


def test_nothing_is_lost_at_zero_frequency() -> None:
    assert float(dose_weights(torch.zeros(1), torch.tensor([80.0]))) == pytest.approx(1.0, abs=1e-6)


def test_exposure_is_counted_at_the_end_of_each_frame_and_includes_what_came_before() -> None:
    assert exposures(3, 1.5, 2.0).tolist() == [3.5, 5.0, 6.5]


def test_white_noise_keeps_its_power_in_the_weighted_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    frequency = torch.linspace(0.01, 0.5, 64)
    weights = dose_weights(frequency, exposures(30, 1.0))
    noise = torch.randn(30, 4000, 64, generator=generator)
    weighted = (weights[:, None] * noise).sum(dim=0) / weight_norm(weights)
    assert torch.allclose(weighted.var(dim=0), torch.ones(64), atol=0.12)


def test_an_impossible_voltage_is_refused() -> None:
    with pytest.raises(ConfigError, match="kV"):
        critical_exposure(torch.ones(1), 300_000)
