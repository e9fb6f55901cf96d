"""Centre, length and width of what class averages show."""

import numpy as np
import pytest

from beamside.errors import InputError
from beamside.imaging.classes.shape import class_shapes, origins_after_recentring, recentred
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler, view_directions

BOX, PIXEL = 64, 4.0
Y, X = np.mgrid[:BOX, :BOX] - BOX // 2


def bar(angle: float, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    """A soft bar of 120 by 48 Å, its long axis turned by `angle` degrees from x towards y, with noise around it."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along, across = (X - x) * cos + (Y - y) * sin, (Y - y) * cos - (X - x) * sin
    image = np.clip(15.5 - np.abs(along), 0, 1) * np.clip(6.5 - np.abs(across), 0, 1)
    return image + np.random.default_rng(1).normal(0, 0.03, image.shape)


@pytest.mark.parametrize("angle", [0, 30, 90])
def test_a_bar_has_its_length_width_and_centre(angle: float) -> None:
    (shape,) = class_shapes(bar(angle, 3, -5)[None], PIXEL, 180)
    assert shape.centre == pytest.approx((3, -5), abs=0.3)
    assert shape.short == pytest.approx(48, abs=12)
    assert 115 < shape.long < 145, "a bar is longest along its diagonal"


def test_projections_are_as_large_as_the_specimen() -> None:
    specimen = make_specimen("shell")
    views = view_directions(specimen, 4)
    images = project(specimen, rotation_from_euler(views[:, 0], views[:, 1], np.zeros(4)), PIXEL, BOX)
    for shape in class_shapes(images, PIXEL, 150):
        assert shape.long == pytest.approx(specimen.diameter, rel=0.12)
        assert 0.8 * specimen.diameter < shape.short <= shape.long


def test_noise_and_nothing_have_no_size() -> None:
    noise = np.random.default_rng(2).normal(size=(BOX, BOX))
    found = class_shapes(np.stack([np.zeros((BOX, BOX)), noise]), PIXEL, 180)
    assert found[0].long == 0
    assert found[1].long < 60


def test_recentred_averages_are_centred() -> None:
    images = np.stack([bar(20, 4, -3), bar(70, -2.5, 6.25)])
    centres = np.array([shape.centre for shape in class_shapes(images, PIXEL, 180)])
    for shape in class_shapes(recentred(images, centres), PIXEL, 180):
        assert shape.centre == pytest.approx((0, 0), abs=0.15)


@pytest.mark.parametrize("psi", [0.0, 35.0, -120.0])
def test_particles_follow_their_recentred_average(psi: float) -> None:
    """A particle that its old origin brings onto the old average is brought onto the new one by its new origin."""
    moved = np.array([[5.0, -2.0]])
    cos, sin = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    # RELION: aligned(x, y) = shifted(cos x + sin y, -sin x + cos y), and shifting by the origin moves the particle by it.
    place = np.array([7.0, 1.0])  # of a feature in the old average, y and x
    shifted = np.array([cos * place[0] - sin * place[1], sin * place[0] + cos * place[1]])
    old = np.array([[1.5, -0.5]])
    in_particle = shifted - old[0]
    new = origins_after_recentring(old, np.array([psi]), moved)[0]
    again = in_particle + new
    back = np.array([cos * again[0] + sin * again[1], -sin * again[0] + cos * again[1]])
    assert back == pytest.approx(place - moved[0])


def test_what_is_no_stack_of_averages_is_refused() -> None:
    with pytest.raises(InputError, match="stack of square images"):
        class_shapes(np.zeros((3, 10, 12)), PIXEL, 100)
