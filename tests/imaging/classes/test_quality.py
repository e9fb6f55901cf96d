"""The score of classes: particles high; empty boxes, slopes of carbon and unlike classes low."""

import numpy as np
import pytest

from beamside.errors import InputError
from beamside.imaging.classes.quality import FEATURES, ClassStatistics, class_scores, measure_classes
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler, view_directions

BOX, PIXEL, MASK = 48, 4.5, 150.0
Y, X = np.mgrid[:BOX, :BOX] - BOX // 2
NAMES = ("particle",) * 5 + ("empty", "carbon", "ice")


@pytest.fixture(scope="module")
def averages() -> np.ndarray:
    """Five views of a particle, an average of empty boxes, a carbon edge and an ice crystal, as classification gives them."""
    specimen = make_specimen("shell")
    views = view_directions(specimen, 5)
    images = project(specimen, rotation_from_euler(views[:, 0], views[:, 1], np.zeros(5)), PIXEL, BOX)
    images = images / images.std() + np.random.default_rng(3).normal(0, 0.1, images.shape)
    empty = np.random.default_rng(4).normal(0, 0.15, (BOX, BOX))
    carbon = 6 / (1 + np.exp(-(X + 8) / 2))
    ice = 9 * np.exp(-(((Y - 6) ** 2 + X**2) / 200))
    return np.stack([*images, empty, carbon, ice])


def statistics(**changes: np.ndarray) -> ClassStatistics:
    usual = {
        "counts": np.array([90, 80, 100, 70, 95, 60, 40, 20.0]),
        "resolution": np.array([14, 15, 13, 15, 14, 30, 32, 36.0]),
        "pmax": np.array([0.7, 0.7, 0.8, 0.7, 0.7, 0.2, 0.8, 0.8]),
        "evidence": np.array([80, 75, 85, 70, 80, 5, 900, 2500.0]),
    }
    return ClassStatistics(**{**usual, **changes})


def test_particles_score_high_and_junk_low(averages: np.ndarray) -> None:
    scores = class_scores(measure_classes(averages, PIXEL, MASK, statistics()))
    found = dict(zip(NAMES[4:], scores[4:], strict=True))
    assert scores[:5].min() > 0.6
    assert max(found["empty"], found["carbon"], found["ice"]) < 0.4
    assert ((scores >= 0) & (scores <= 1)).all()


def test_the_scale_of_the_images_does_not_matter(averages: np.ndarray) -> None:
    one, other = (class_scores(measure_classes(averages * by, PIXEL, MASK, statistics())) for by in (1, 7.5))
    assert one == pytest.approx(other, abs=1e-3)


def test_classes_whose_particles_fit_no_single_pose_score_lower(averages: np.ndarray) -> None:
    pmax = statistics().pmax.copy()
    pmax[0] = 0.1
    before, after = (
        class_scores(measure_classes(averages, PIXEL, MASK, each)) for each in (statistics(), statistics(pmax=pmax))
    )
    assert after[0] < before[0]
    assert after[1:] == pytest.approx(before[1:])


def test_every_feature_of_the_model_is_measured_and_explained(averages: np.ndarray) -> None:
    features = measure_classes(averages, PIXEL, MASK, statistics())
    assert {feature.name for feature in FEATURES} == set(features)
    assert all(feature.meaning and feature.spread > 0 for feature in FEATURES)
    assert all(np.isfinite(values).all() for values in features.values())


def test_a_round_without_particles_in_some_classes_has_scores(averages: np.ndarray) -> None:
    counts = np.zeros(8)
    counts[0] = 5
    assert np.isfinite(class_scores(measure_classes(averages, PIXEL, MASK, statistics(counts=counts)))).all()


def test_averages_and_statistics_must_fit(averages: np.ndarray) -> None:
    with pytest.raises(InputError, match="3 class averages"):
        measure_classes(averages[:3], PIXEL, MASK, statistics())
