"""Picking with references: what is found, in which view and rotation, and what chance finds."""

import numpy as np
import pytest
import torch

from beamside.errors import InputError
from beamside.imaging.picking.blobs import BlobSettings
from beamside.imaging.picking.candidates import Candidates, accept
from beamside.imaging.picking.templates import CERTAIN, Ctf, References, chance_threshold, pick_templates
from beamside.simulate.movie import MovieSettings, MovieTruth, simulate_micrograph
from beamside.simulate.score import match_picks
from beamside.simulate.specimen import Specimen, make_specimen, project, rotation_from_euler, view_directions

SETTINGS = BlobSettings(1.3, 140.0, 200.0)


def references_of(specimen: Specimen, views: int = 8, pixel_size: float = 4.0, **changes: float) -> References:
    rot, tilt = view_directions(specimen, views).T
    images = project(specimen, rotation_from_euler(rot, tilt, np.zeros(views)), pixel_size, 64)
    return References(torch.from_numpy(images), pixel_size, 200.0, **changes)


def ctf_of(truth: MovieTruth) -> Ctf:
    each = truth.defocus
    return Ctf(each.u, each.v, each.angle, 0.0, 300.0, 2.7, 0.1)


def find(
    specimen: Specimen, seed: int, references: References | None = None, **changes: float | tuple[float, float]
) -> tuple[Candidates, MovieTruth]:
    settings = MovieSettings(size=(1024, 1024), **changes)  # type: ignore[arg-type]
    micrograph, truth = simulate_micrograph(settings, specimen, seed)
    references = references or references_of(specimen)
    return accept(pick_templates(torch.from_numpy(micrograph), SETTINGS, references, ctf_of(truth))), truth


@pytest.mark.parametrize(
    ("name", "seed", "defocus"), [("barrel", 1, 7000.0), ("asymmetric", 2, 15000.0), ("barrel", 3, 28000.0)]
)
def test_particles_are_found_over_the_range_of_defocus(name: str, seed: int, defocus: float) -> None:
    specimen = make_specimen(name)
    picks, truth = find(specimen, seed, defocus=(defocus, defocus + 1), contamination=1.0)
    score = match_picks(truth.particles[:, :2], picks.coordinates.numpy(), 0.3 * specimen.diameter / 1.3)
    assert score.true > 10
    assert score.f1 >= 0.93


def test_the_angle_is_the_one_that_relion_means() -> None:
    """One view only, so the reference's ψ must be that of the particle: RELION's third Euler angle."""
    specimen = make_specimen("asymmetric")
    settings = MovieSettings(size=(1024, 1024), contamination=0.0, particle_spacing=0.0, defocus=(15000.0, 15001.0))
    ice, truth = simulate_micrograph(settings, specimen, 4)
    psi = np.array([20.0, 80.0, 145.0, 230.0, 300.0])
    places = [(250, 250), (250, 700), (500, 500), (750, 300), (750, 750)]
    images = project(specimen, rotation_from_euler(np.full(5, 30.0), np.full(5, 60.0), psi), 1.3, 256)
    from beamside.imaging.ctf.model import ctf_2d

    ctf = ctf_2d(
        (256, 256),
        1.3,
        truth.defocus.u,
        truth.defocus.v,
        truth.defocus.angle,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )
    seen = torch.fft.irfft2(torch.fft.rfft2(torch.from_numpy(images)) * ctf, s=(256, 256)).numpy()
    for (y, x), image in zip(places, seen, strict=True):
        ice[y - 128 : y + 128, x - 128 : x + 128] -= image / image.std() * 2.0 * ice.std() * 0.5
    one = References(
        torch.from_numpy(project(specimen, rotation_from_euler([30.0], [60.0], [0.0]), 4.0, 64)), 4.0, 200.0
    )
    picks = accept(pick_templates(torch.from_numpy(ice), SETTINGS, one, ctf_of(truth)))
    assert len(picks) == 5
    for (y, x), angle in zip(places, psi, strict=True):
        nearest = int(torch.cdist(picks.coordinates, torch.tensor([[float(y), float(x)]])).argmin())
        difference = (float(picks.psi[nearest]) - angle + 180) % 360 - 180
        assert abs(difference) <= 5
        assert int(picks.references[nearest]) == 1


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_empty_ice_has_almost_no_particles(seed: int) -> None:
    picks, _ = find(make_specimen(), seed, particle_spacing=0.0, contamination=0.0)
    assert len(picks) <= 1


def test_references_that_do_not_fit_the_specimen_find_less() -> None:
    right, _ = find(make_specimen("asymmetric"), 8, contamination=0.0)
    wrong, _ = find(make_specimen("asymmetric"), 8, references_of(make_specimen("shell")), contamination=0.0)
    assert float(right.scores.median()) > 1.2 * float(wrong.scores.median())


def test_few_patterns_hold_all_rotations() -> None:
    references = references_of(make_specimen(), views=6)
    patterns, weights = references.patterns(10.0)
    assert len(weights) == 6 * 72
    assert len(patterns) < 120
    rebuilt = torch.einsum("tm,mhw->thw", weights, patterns)
    assert torch.allclose((patterns.flatten(1) @ patterns.flatten(1).T), torch.eye(len(patterns)), atol=1e-4)
    energy = rebuilt.flatten(1).square().sum(1)
    assert float(energy.min()) > 0.95


def test_the_threshold_keeps_chance_a_small_part() -> None:
    chance = torch.linspace(3.6, 4.6, 60)
    particles = torch.linspace(8.0, 12.0, 50)
    assert 4.6 < chance_threshold(torch.cat([chance, particles]), 150.0, 100) <= 8.0
    assert chance_threshold(chance, 150.0, 100) == CERTAIN
    assert chance_threshold(torch.zeros(0), 150.0, 100) == CERTAIN


@pytest.mark.parametrize(
    "wrong", [torch.zeros(0, 8, 8), torch.ones(2, 8, 9), torch.zeros(3, 8, 8), torch.full((1, 8, 8), torch.nan)]
)
def test_images_that_are_no_references_are_a_clear_error(wrong: torch.Tensor) -> None:
    with pytest.raises(InputError, match="eferences"):
        References(wrong, 4.0, 100.0)
