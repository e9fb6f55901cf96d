from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.fft import irfft2, rfft2

from beamside.errors import ConfigError, CorruptFileError
from beamside.simulate.gain import gain_reference
from beamside.simulate.movie import HOT_RATE, MovieSettings, MovieTruth, draw_truth, simulate_micrograph, simulate_movie
from beamside.simulate.optics import Tilt
from beamside.simulate.scene import Scene
from beamside.simulate.specimen import Specimen, make_specimen

SMALL = MovieSettings(size=(256, 320), frames=6, pixel_size=2.0)
EMPTY = replace(SMALL, particle_spacing=0.0, contamination=0.0, ice_thickness=0.0)


def bead() -> Specimen:
    """Return a compact, very dense particle, whose place can be measured in a single frame."""
    positions = np.random.default_rng(0).normal(0, 6, (300, 3))
    return Specimen("bead", positions - positions.mean(axis=0), np.full(300, 12000.0), np.eye(3)[None])


def shift_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how far `second` is moved from `first`, y and x in pixels, by cross-correlation on a grid of 1/8 pixel."""
    shape, fine = first.shape, tuple(8 * size for size in first.shape)
    product = np.conj(rfft2(first - first.mean())) * rfft2(second - second.mean())
    padded = np.zeros((fine[0], fine[1] // 2 + 1), dtype=complex)
    half = shape[0] // 2
    padded[:half, : shape[1] // 2], padded[-half:, : shape[1] // 2] = product[:half, :-1], product[-half:, :-1]
    row, column = np.unravel_index(np.argmax(irfft2(padded, s=fine)), fine)
    peak = np.array([row, column], dtype=float)
    return (peak - np.array(fine) * (peak > np.array(fine) / 2)) / 8


def test_the_same_seed_gives_the_same_movie_and_another_does_not() -> None:
    first, second, other = (simulate_movie(SMALL, seed=seed).counts for seed in (3, 3, 4))
    assert first.dtype == np.uint8
    assert first.shape == (6, 256, 320)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_truth_survives_its_file(tmp_path: Path) -> None:
    settings = replace(SMALL, carbon=0.2, contamination=5.0)
    truth = draw_truth(settings, make_specimen(), 8)
    assert truth.contents.hole is not None
    assert len(truth.contaminants) > 0
    truth.save(tmp_path / "truth.json")
    loaded = MovieTruth.load(tmp_path / "truth.json")
    assert loaded.to_json() == truth.to_json()
    assert loaded.settings == settings
    points = np.array([[10.0, 20.0], [200.0, 100.0]])
    assert np.array_equal(loaded.displacement(points), truth.displacement(points))


def test_a_file_without_truth_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    with pytest.raises(CorruptFileError, match=r"other\.json"):
        MovieTruth.load(path)


def test_the_specimen_moves_as_the_truth_says() -> None:
    settings = replace(
        EMPTY,
        size=(512, 512),
        frames=5,
        dose_per_frame=12.0,
        particle_spacing=180.0,
        drift=24.0,
        local_motion=6.0,
        defocus=(3000.0, 3000.0),
    )
    movie = simulate_movie(settings, bead(), seed=1)
    displacement = movie.truth.displacement(movie.truth.particles[:, :2])
    corrected = movie.counts * movie.gain.gain
    corrected[:, *movie.gain.hot.T] = corrected[:, *movie.gain.dead.T] = corrected.mean()
    errors, truths = [], []
    for index, (y, x) in enumerate(movie.truth.particles[:, :2]):
        top, left = round(y) - 32, round(x) - 32
        if 0 <= top <= 512 - 64 and 0 <= left <= 512 - 64:
            windows = corrected[:, top : top + 64, left : left + 64]
            errors.append([shift_between(windows[0], window) for window in windows[1:]] - displacement[1:, index])
            truths.append(displacement[1:, index])
    error, local = np.array(errors), np.array(truths) - np.mean(truths, axis=0)
    assert len(error) >= 10
    assert np.ptp(local, axis=0).max() > 2
    # single frames are noisy; what must not be there is an offset, or local motion of another size
    assert np.sqrt(np.mean(error**2)) < 0.25
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.06
    assert abs((error * local).sum() / (local**2).sum()) < 0.04


def test_particles_are_where_the_truth_says() -> None:
    settings = replace(EMPTY, size=(512, 512), particle_spacing=180.0, defocus=(8000.0, 8000.0))
    micrograph, truth = simulate_micrograph(settings, bead(), seed=2)
    assert len(truth.particles) > 10
    near = np.zeros(settings.size, dtype=bool)
    for y, x in np.rint(truth.particles[:, :2]).astype(int):
        near[y - 2 : y + 3, x - 2 : x + 3] = True
    assert micrograph[near].mean() < 0.9 * micrograph[~near].mean()


def test_displacement_is_zero_in_the_first_frame_and_decays() -> None:
    truth = draw_truth(replace(SMALL, frames=40, jitter=0.0), make_specimen(), 5)
    displacement = truth.displacement([[128.0, 160.0]])[:, 0]
    assert np.array_equal(displacement[0], [0, 0])
    steps = np.linalg.norm(np.diff(displacement, axis=0), axis=1)
    assert steps[:3].mean() > 5 * steps[-10:].mean()


def test_a_jump_moves_all_later_frames() -> None:
    plain, jumped = (
        draw_truth(replace(SMALL, jump=jump), make_specimen(), 5).displacement([[0.0, 0.0]])[:, 0] for jump in (0, 3)
    )
    assert np.allclose(plain[:3], jumped[:3])
    assert np.allclose(np.linalg.norm(jumped[3:] - plain[3:], axis=1) * SMALL.pixel_size, 15, atol=1e-3)


def test_counts_are_poisson_about_dose_over_gain() -> None:
    movie = simulate_movie(replace(EMPTY, frames=20), seed=1)
    good = np.ones(EMPTY.size, dtype=bool)
    for defects in (movie.gain.dead, movie.gain.hot):
        good[defects[:, 0], defects[:, 1]] = False
    expected = EMPTY.dose_per_frame * EMPTY.pixel_size**2 / movie.gain.gain[good]
    counts = movie.counts[:, good].astype(float)
    assert (counts / expected).mean() == pytest.approx(1.0, abs=2e-3)
    assert ((counts - expected) ** 2 / expected).mean() == pytest.approx(1.0, abs=0.01)
    # pixels and frames are independent of each other
    residual = (movie.counts * movie.gain.gain - 4.0)[:, :128, :128]
    assert abs(np.mean(residual[1:] * residual[:-1])) < 0.05
    assert abs(np.mean(residual[:, 1:] * residual[:, :-1])) < 0.1


def test_defects_are_where_the_gain_says() -> None:
    movie = simulate_movie(replace(EMPTY, frames=10), seed=1)
    dead, hot = movie.gain.dead, movie.gain.hot
    alive = np.array([not (dead == place).all(axis=1).any() for place in hot])
    assert movie.counts[:, hot[alive, 0], hot[alive, 1]].mean() == pytest.approx(HOT_RATE, rel=0.3)
    assert (movie.counts.max(axis=0) == 0).sum() >= len(np.unique(dead, axis=0)) - (~alive).sum()


def test_the_gain_reference_has_mean_one_and_a_pattern() -> None:
    gain = gain_reference((600, 700), 3)
    assert gain.gain.dtype == np.float32
    assert gain.gain.mean() == pytest.approx(1, abs=1e-5)
    assert 0.05 < gain.gain.std() < 0.08
    columns = gain.gain.mean(axis=0)
    assert columns.std() > 0.015
    assert np.array_equal(gain.gain, gain_reference((600, 700), 3).gain)


def test_particles_keep_their_distance() -> None:
    settings = MovieSettings(size=(1536, 1536), contamination=1.5, carbon=0.15)
    specimen = make_specimen()
    truth = draw_truth(settings, specimen, 2)
    places, reach = truth.particles[:, :2], specimen.diameter / 2 / settings.pixel_size
    assert len(places) > 20
    between = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(len(places))
    assert between.min() > 1.89 * reach
    assert places.min() > reach
    assert places.max() < 1536 - reach
    for y, x, radius in truth.contaminants:
        assert np.hypot(*(places - [y, x]).T).min() > radius + reach
    assert truth.contents.hole is not None
    y, x, radius = truth.contents.hole
    assert np.hypot(*(places - [y, x]).T).max() < radius - reach


def test_the_carbon_covers_about_the_asked_share() -> None:
    truth = draw_truth(MovieSettings(size=(512, 512), carbon=0.3), make_specimen(), 2)
    assert truth.contents.hole is not None
    y, x, radius = truth.contents.hole
    rows, columns = np.mgrid[:512, :512]
    assert 0.15 < (np.hypot(rows - y, columns - x) > radius).mean() < 0.45


def test_a_micrograph_is_the_movie_without_motion() -> None:
    settings = replace(SMALL, size=(384, 384), dose_per_frame=6.0, drift=0.0, local_motion=0.0, jitter=0.0)
    movie = simulate_movie(settings, seed=6)
    total = (movie.counts * movie.gain.gain).sum(axis=0)
    micrograph, truth = simulate_micrograph(settings, seed=6)
    assert truth.to_json() == movie.truth.to_json()
    assert micrograph.mean() == pytest.approx(total.mean(), rel=0.01)
    low = [rfft2(image - image.mean())[1:10, 1:10] for image in (total, micrograph)]
    assert abs(np.vdot(low[0], low[1])) / np.linalg.norm(low[0]) / np.linalg.norm(low[1]) > 0.9


def test_a_gain_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="gain reference"):
        simulate_movie(SMALL, gain=gain_reference((100, 100), 1))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="too small"):
        MovieSettings(size=(10, 10))
    with pytest.raises(ConfigError, match="above 0"):
        MovieSettings(pixel_size=0)


def test_a_tilted_specimen_has_its_local_defocus_everywhere() -> None:
    settings = replace(EMPTY, particle_spacing=60.0, defocus=(12000.0, 12000.0), astigmatism=0.0)

    def contrast(mean: float, tilt: Tilt | None = None) -> np.ndarray:
        truth = draw_truth(replace(settings, defocus=(mean, mean)), bead(), 2)
        rng = np.random.default_rng(1)
        scene = Scene(
            truth.contents,
            bead(),
            settings.sample,
            settings.size,
            2.0,
            0,
            truth.defocus,
            settings.beam,
            100.0,
            rng,
            tilt,
        )
        return scene.contrast(0.0)

    # the defocus is 600 Å above its mean 128 Å, or 64 pixels, below the middle
    tilted = contrast(12000.0, Tilt(float(np.rad2deg(np.arctan(600 / 128)))))
    for row, mean in ((128, 12000.0), (192, 12600.0), (64, 11400.0)):
        flat = contrast(mean)[2 * row]
        assert np.allclose(tilted[2 * row], flat, atol=1e-3 * np.abs(flat).max())
        assert not np.allclose(tilted[2 * row], contrast(mean + 600)[2 * row], atol=0.05 * np.abs(flat).max())


def test_a_specimen_on_edge_is_refused() -> None:
    with pytest.raises(ConfigError, match="75"):
        replace(SMALL, tilt_angle=80.0)
