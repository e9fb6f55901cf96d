import numpy as np
import pytest
from scipy.stats import poisson

from beamside.simulate.counting import PoissonCounter


def draw(rate: float, highest: float, count: int = 400_000) -> np.ndarray:
    rng = np.random.default_rng(1)
    rates = np.full(count, rate, dtype=np.float32)
    dither, bits = rng.integers(0, 256, count, dtype=np.uint8), rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return PoissonCounter(highest).draw(rates, dither, bits)


@pytest.mark.parametrize("rate", [0.05, 0.7131, 1.69, 12.3])
def test_counts_follow_the_poisson_distribution(rate: float) -> None:
    counts = draw(rate, 15.0)
    assert counts.mean() == pytest.approx(rate, rel=0.02)
    assert counts.var() == pytest.approx(rate, rel=0.03)
    seen = np.bincount(counts, minlength=40)[:40] / len(counts)
    assert np.abs(seen - poisson.pmf(np.arange(40), rate)).max() < 0.004


def test_no_rate_gives_no_counts() -> None:
    assert not draw(0.0, 2.0, 1000).any()


def test_rates_beyond_the_table_take_its_last() -> None:
    assert draw(9.0, 2.0).mean() == pytest.approx(2.0, rel=0.02)
    assert draw(500.0, 500.0).max() == 255
