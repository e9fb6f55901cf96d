"""A particle's own noise in its class's average says nothing for its being of that class."""

from functools import cache

import pytest
import torch

from beamside.imaging.classify2d import ClassifySettings
from beamside.imaging.classify2d.expectation import Batch, log_likelihood_ratio, make_batch, make_templates
from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.maximisation import signal_power
from beamside.imaging.classify2d.own_noise import OwnNoise, leverage
from beamside.imaging.classify2d.polar import from_modes

BOX, MEMBERS = 48, 12
SETTINGS = ClassifySettings(classes=2, pixel_size=4.0, particle_diameter=100.0)
NOISE = 1.3


@cache
def geometry() -> Geometry:
    return Geometry(BOX, SETTINGS, torch.device("cpu"))


def particles(count: int, seed: int) -> Batch:
    """Return particles of one view, all in one place, with white noise."""
    axis = torch.arange(BOX) - BOX // 2
    image = sum(
        torch.exp(-((axis[:, None] - y) ** 2 + (axis[None] - x) ** 2) / 8) for y, x in ((4, 1), (-3, 5), (0, -6))
    )
    generator = torch.Generator().manual_seed(seed)
    images = NOISE * torch.randn((count, BOX, BOX), generator=generator)
    whole, grid = geometry(), geometry().grid
    transfer = 0.5 + torch.rand((count, grid.rings, 1), generator=generator).expand(-1, -1, grid.angles // 2)
    rings = whole.whole().forward(image[None]) * transfer + whole.whole().forward(images * whole.mask)
    noise = torch.full((count, grid.rings), NOISE**2)
    return make_batch(rings, transfer, noise, torch.zeros(count, 2), grid)


def averaged(batch: Batch, prior: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the masked average of a batch on the rings ``(1, R, N / 2)``, and its weights."""
    grid = geometry().grid
    data = from_modes(batch.modes.sum(1).T)
    weights = torch.fft.irfft(batch.weights.sum(1).T, n=grid.angles // 2)
    image = geometry().whole().backward((data / (weights + prior))[None]) * geometry().reference_mask
    return geometry().whole().forward(image), weights


def likelihood(reference: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the logarithm of the likelihood ratio ``(n,)`` in the position in which the particles are."""
    templates = make_templates(reference, geometry().grid, torch.zeros(1, 2), 0.0)
    return log_likelihood_ratio(templates, batch)[:, 0, 0, 0]


def prior_of(batch: Batch) -> torch.Tensor:
    data = from_modes(batch.modes.sum(1).T)[None]
    weights = torch.fft.irfft(batch.weights.sum(1).T, n=geometry().grid.angles // 2)[None]
    return signal_power(data, weights, geometry().mask_fraction)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_what_the_likelihood_loses_when_the_particle_is_left_out_of_the_average(seed: int) -> None:
    batch = particles(MEMBERS, seed)
    signal = prior_of(batch)
    prior = 1 / (SETTINGS.tau2_fudge * signal[:, None])
    average, weights = averaged(batch, prior)
    with_it = likelihood(average, batch)
    everyone = torch.arange(MEMBERS)
    without = torch.stack(
        [
            likelihood(averaged(batch.of(everyone != one), prior)[0], batch.of(slice(one, one + 1)))[0]
            for one in everyone
        ]
    )
    told = leverage(geometry(), geometry().grid, signal, weights[None], torch.tensor([float(MEMBERS)])).sum()
    # to first order in 1 / particles; the average without it is also less filtered
    assert float((with_it - without).mean()) == pytest.approx(float(told), rel=0.2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_particles_leave_a_small_class_of_their_view_for_the_large_one(seed: int) -> None:
    batch, few, count = particles(46, seed), 6, 46
    signal = prior_of(batch)
    prior = 1 / (SETTINGS.tau2_fudge * signal[:, None])
    small, small_weights = averaged(batch.of(slice(0, few)), prior)
    large, large_weights = averaged(batch.of(slice(few, count)), prior)
    counts = torch.tensor([float(few), float(count - few)])
    own = OwnNoise(
        (torch.arange(count) >= few).long(),
        torch.ones(count),
        leverage(geometry(), geometry().grid, signal, torch.stack([small_weights, large_weights]), counts),
    )
    found = torch.stack([likelihood(small, batch), likelihood(large, batch)], dim=1)
    assert int((found.argmax(1)[:few] == 0).sum()) == few, "their own noise keeps them where they are"
    better = (found - own.gain(geometry().grid.rings)).argmax(1)
    assert int((better[:few] == 1).sum()) >= few - 1
    assert int((better[few:] == 1).sum()) > 0.75 * (count - few), (
        "and the others stay, though that average is without them"
    )


def test_a_particle_counts_by_its_probability_and_on_the_rings_that_are_looked_at() -> None:
    own = OwnNoise(
        torch.tensor([1, -1, 0]), torch.tensor([0.5, 0.9, 1.0]), torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 8.0]])
    )
    assert own.gain(2).tolist() == [[0.0, 2.0], [0.0, 0.0], [3.0, 0.0]]
    assert own.of(torch.tensor([2])).gain(3).tolist() == [[7.0, 0.0]]
