"""Blob picking: what is found, what is left out, and where."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from beamside.errors import InputError
from beamside.imaging.masks import carbon_mask, two_classes
from beamside.imaging.picking.blobs import FLOOR, BlobSettings, automatic_threshold, pick_blobs
from beamside.imaging.picking.candidates import Candidates, accept
from beamside.simulate.movie import MovieSettings, simulate_micrograph
from beamside.simulate.score import match_picks
from beamside.simulate.specimen import make_specimen

DATA = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[4] / "shared/data"))
BARREL = BlobSettings(1.3, 140.0, 200.0)


def field(size: tuple[int, int] = (640, 720), seed: int = 0) -> np.ndarray:
    """Return noisy ice with small differences of thickness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    return np.asarray(rng.normal(100, 10, size) + 0.004 * x + 2 * np.sin(y / 150), dtype=np.float32)


def add_disc(image: np.ndarray, y: float, x: float, diameter: float, depth: float) -> None:
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    image[np.hypot(rows - y, columns - x) <= diameter / 2] -= depth


def candidates(image: np.ndarray, **changes: float | bool) -> Candidates:
    settings: dict[str, float | bool] = {"pixel_size": 2.0, "min_diameter": 90.0, "max_diameter": 120.0, **changes}
    return pick_blobs(torch.from_numpy(image), BlobSettings(**settings))


def pick(image: np.ndarray, **changes: float | bool) -> Candidates:
    return accept(candidates(image, **changes))


def pick_micrograph(micrograph: np.ndarray, settings: BlobSettings) -> Candidates:
    return accept(pick_blobs(torch.from_numpy(micrograph), settings))


PLACES = [(100, 120), (100, 400), (320, 250), (500, 600), (480, 130), (250, 620)]


def disc_field(depth: float = 4.0) -> np.ndarray:
    image = field()
    for y, x in PLACES:
        add_disc(image, y, x, 50, depth)
    return image


def test_dark_discs_are_found_where_they_are_at_whole_pixels() -> None:
    picks = pick(disc_field())
    found = sorted(map(tuple, picks.coordinates.tolist()))
    assert len(found) == len(PLACES)
    assert np.abs(np.array(found) - np.array(sorted(PLACES))).max() <= 3
    assert torch.equal(picks.coordinates, picks.coordinates.round())
    assert (picks.scores.diff() <= 0).all()
    assert ((picks.diameters >= 90) & (picks.diameters <= 120)).all()


def test_bright_discs_are_not_particles() -> None:
    found = pick(disc_field(depth=-4.0)).coordinates
    assert float(torch.cdist(found, torch.tensor(PLACES, dtype=found.dtype)).min()) > 25


def test_the_scale_and_offset_of_grey_values_do_not_matter() -> None:
    image = disc_field()
    first, second = pick(image), pick(image * 200 + 3000)
    assert torch.equal(first.coordinates, second.coordinates)


def test_candidates_reach_well_below_the_threshold_and_are_sorted() -> None:
    found = candidates(disc_field())
    assert len(found) > len(PLACES)
    assert float(found.scores.min()) >= FLOOR == found.floor
    assert float(found.scores.min()) < found.threshold - 2


def test_candidates_keep_the_minimum_distance_and_the_border() -> None:
    found = candidates(field(), min_distance=1.0, border=80.0)
    distances = torch.pdist(found.coordinates)
    assert len(found) > 5
    assert float(distances.min()) * 2.0 > 0.9 * np.sqrt(90 * 120)
    limit = torch.tensor([640.0, 720.0])
    assert ((found.coordinates >= 39) & (found.coordinates <= limit - 39)).all()


def test_hot_pixels_are_not_picked() -> None:
    image = field()
    image[::97, ::89] = -1e5
    assert len(pick(image).coordinates) <= 1


def test_a_constant_micrograph_gives_nothing() -> None:
    assert len(pick(np.full((640, 640), 5.0, np.float32)).coordinates) == 0


def test_ice_crystals_are_masked_and_counted() -> None:
    image = disc_field()
    add_disc(image, 330, 470, 130, 40.0)
    picks = pick(image)
    assert sorted(picks.coordinates[:, 0].tolist()) == pytest.approx(sorted(y for y, _ in PLACES), abs=4)
    assert 0.02 < picks.excluded < 0.15
    assert len(pick(image, mask=False).coordinates) > len(PLACES)


def test_carbon_is_masked_but_a_gradient_of_ice_is_not() -> None:
    rows, columns = torch.meshgrid(torch.arange(200.0), torch.arange(220.0), indexing="ij")
    noise = torch.randn(200, 220, generator=torch.Generator().manual_seed(1))
    carbon = columns + 0.2 * rows > 150
    mask = carbon_mask(noise + 6.0 * carbon, 15.0)
    assert float((mask == ~carbon).float().mean()) > 0.95
    assert carbon_mask(noise + 0.05 * columns, 15.0).all()
    assert carbon_mask(noise, 15.0).all()


def test_carbon_is_seen_beside_a_slope_of_the_ice_that_is_as_strong() -> None:
    rows, columns = torch.meshgrid(torch.arange(200.0), torch.arange(220.0), indexing="ij")
    noise = torch.randn(200, 220, generator=torch.Generator().manual_seed(2))
    carbon = columns + 0.2 * rows > 170
    mask = carbon_mask(noise + 6.0 * carbon - 0.04 * columns, 15.0)
    assert float((mask == ~carbon).float().mean()) > 0.95


def test_carbon_is_seen_beside_a_crystal_as_large() -> None:
    rows, columns = torch.meshgrid(torch.arange(200.0), torch.arange(220.0), indexing="ij")
    noise = torch.randn(200, 220, generator=torch.Generator().manual_seed(3))
    carbon, crystal = columns + 0.2 * rows > 180, torch.hypot(rows - 100, columns - 70) < 40
    mask = carbon_mask(noise + 6.0 * carbon + 30.0 * crystal, 15.0)
    assert float((mask == ~(carbon | crystal)).float().mean()) > 0.95


def test_carbon_is_seen_where_contamination_hides_its_edge() -> None:
    _, columns = torch.meshgrid(torch.arange(200.0), torch.arange(220.0), indexing="ij")
    noise = torch.randn(200, 220, generator=torch.Generator().manual_seed(4))
    carbon, crystals = columns > 160, (columns > 150) & (columns < 175)
    mask = carbon_mask(noise + 6.0 * carbon + 9.0 * crystals, 15.0, ~crystals)
    assert not mask[carbon & ~crystals].any()
    assert float(mask[~carbon & ~crystals].float().mean()) > 0.95


def test_two_classes_are_told_apart_by_their_distance() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=20000).astype(np.float32)
    assert two_classes(normal)[1] == pytest.approx(2.65, abs=0.1)
    split, separation = two_classes(np.concatenate([normal, normal + 10]))
    assert separation == pytest.approx(10, abs=0.2)
    assert 3 < split < 7


def test_the_automatic_threshold_is_half_the_particles_score_and_never_in_the_noise() -> None:
    assert automatic_threshold(torch.tensor([30.0, 28.0, 26.0, 5.0, 4.0])) == 14.0
    assert automatic_threshold(torch.tensor([11.0, 5.0])) == 10.5
    assert automatic_threshold(torch.tensor([3.0])) == 10.5
    assert automatic_threshold(torch.zeros(0)) == 10.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixel_size": 0.0},
        {"min_diameter": 130.0},
        {"min_diameter": -1.0},
        {"pixel_size": 20.0},
        {"max_diameter": 900.0},
    ],
)
def test_impossible_settings_are_clear_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        pick(field(), **wrong)


def test_values_that_are_not_finite_are_a_clear_error() -> None:
    image = field()
    image[3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        pick(image)


@pytest.mark.parametrize(("seed", "defocus"), [(1, 6000.0), (2, 12000.0), (3, 30000.0)])
def test_simulated_particles_are_found_over_the_range_of_defocus(seed: int, defocus: float) -> None:
    specimen = make_specimen()
    micrograph, truth = simulate_micrograph(
        MovieSettings(size=(1024, 1024), defocus=(defocus, defocus + 1), contamination=1.0), specimen, seed
    )
    picks = pick_micrograph(micrograph, BARREL)
    score = match_picks(truth.particles[:, :2], picks.coordinates.numpy(), 0.3 * specimen.diameter / 1.3)
    assert score.f1 >= 0.9


def test_hollow_particles_in_a_crowd_are_found_one_by_one() -> None:
    specimen = make_specimen("shell")
    settings = MovieSettings(size=(1024, 1024), defocus=(15000.0, 15001.0), particle_spacing=150.0)
    micrograph, truth = simulate_micrograph(settings, specimen, 6)
    picks = pick_micrograph(micrograph, BlobSettings(1.3, 100.0, 140.0))
    score = match_picks(truth.particles[:, :2], picks.coordinates.numpy(), 0.2 * specimen.diameter / 1.3)
    assert len(truth.particles) > 30
    assert score.f1 >= 0.95


@pytest.mark.parametrize("seed", [4, 5])
def test_empty_ice_has_almost_no_particles(seed: int) -> None:
    settings = MovieSettings(size=(1024, 1024), particle_spacing=0.0, contamination=0.0)
    micrograph, _ = simulate_micrograph(settings, make_specimen(), seed)
    assert len(pick_micrograph(micrograph, BARREL)) <= 1


@pytest.mark.parametrize("seed", [7, 8])
def test_contamination_that_outnumbers_particles_and_a_carbon_edge_do_not_hide_each_other(seed: int) -> None:
    specimen = make_specimen()
    settings = MovieSettings(size=(1280, 1280), contamination=1.6, carbon=0.25, defocus=(15000.0, 25000.0))
    micrograph, truth = simulate_micrograph(settings, specimen, seed)
    picks = pick_micrograph(micrograph, BARREL)
    score = match_picks(truth.particles[:, :2], picks.coordinates.numpy(), 0.3 * specimen.diameter / 1.3)
    assert picks.excluded > 0.1
    assert score.f1 >= 0.93


@pytest.mark.data
@pytest.mark.parametrize("name", ["May08_05.31.00", "May08_05.53.51", "May08_06.30.43", "May08_07.30.46"])
def test_picks_on_real_apoferritin_agree_with_a_person(name: str) -> None:
    folder = DATA / "em/apoferritin"
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder} (set BEAMSIDE_TEST_DATA)")
    micrograph = np.asarray(Image.open(folder / f"sum_unaligned/{name}.bin_avg.png")).astype(np.float32)
    with open(folder / f"picks_csv/{name}.bin_avg.png-points.csv", encoding="utf-8") as file:
        human = np.array([[float(y), float(x)] for x, y in csv.reader(file)])
    border = 50 / 1.5
    human = human[((human > border) & (human < np.array(micrograph.shape) - border)).all(axis=1)]
    picks = pick_micrograph(micrograph, BlobSettings(1.5, 100.0, 150.0))
    score = match_picks(human, picks.coordinates.numpy(), 40 / 1.5)
    assert score.recall > 0.9
    assert score.precision > 0.9
