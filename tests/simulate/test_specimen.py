import numpy as np
import pytest

from beamside.errors import ConfigError
from beamside.simulate.specimen import (
    SPECIMENS,
    make_specimen,
    oriented_eulers,
    project,
    random_rotations,
    rotation_from_euler,
    splat,
    view_directions,
)


@pytest.mark.parametrize("name", SPECIMENS)
def test_specimens_are_centred_and_of_a_complex_size(name: str) -> None:
    specimen = make_specimen(name)
    assert np.allclose(specimen.weights @ specimen.positions / specimen.weights.sum(), 0, atol=1e-6)
    assert 110 < specimen.diameter < 200
    assert specimen.positions.shape == (*specimen.weights.shape, 3)


@pytest.mark.parametrize(("name", "order"), [("barrel", 14), ("asymmetric", 1), ("shell", 24)])
def test_symmetry_leaves_the_specimen_as_it_is(name: str, order: int) -> None:
    specimen = make_specimen(name)
    assert len(specimen.symmetry) == order
    cells = {tuple(cell) for cell in np.round(specimen.positions, 2) + 0.0}
    for rotation in specimen.symmetry:
        turned = specimen.positions @ rotation.T
        # rounding may put a coordinate into the neighbouring cell: nearly all must be found
        found = sum(tuple(cell) in cells for cell in np.round(turned, 2) + 0.0)
        assert found > 0.97 * len(cells)


def test_an_unknown_specimen_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"teapot.*barrel"):
        make_specimen("teapot")


def test_rotations_are_those_of_relion() -> None:
    # RELION: rot about z, then tilt about the new y, then psi about the new z; the matrix takes the specimen to the image
    assert np.allclose(rotation_from_euler(0, 0, 90) @ [1, 0, 0], [0, -1, 0], atol=1e-12)
    assert np.allclose(rotation_from_euler(0, 90, 0) @ [0, 0, 1], [-1, 0, 0], atol=1e-12)
    assert np.allclose(
        rotation_from_euler(30, 40, 50)[2],
        [np.sin(np.deg2rad(40)) * np.cos(np.deg2rad(30)), np.sin(np.deg2rad(40)) * 0.5, np.cos(np.deg2rad(40))],
    )


def test_random_rotations_are_proper_and_uniform() -> None:
    rotations = random_rotations(4000, np.random.default_rng(0))
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1)
    assert np.abs(rotations.mean(axis=0)).max() < 0.04


def test_preferred_orientations_have_the_asked_share() -> None:
    specimen = make_specimen("barrel")
    eulers = oriented_eulers(specimen, 4000, 1.0, np.random.default_rng(0))
    tops, sides = np.abs(eulers[:, 1]) < 20, np.abs(eulers[:, 1] - 90) < 20
    assert (tops | sides).mean() > 0.99
    assert 0.4 < tops.mean() < 0.6


@pytest.mark.parametrize(("name", "apart"), [("asymmetric", 25.0), ("barrel", 6.0)])
def test_views_differ_also_from_the_symmetry_copies_of_others(name: str, apart: float) -> None:
    specimen = make_specimen(name)
    views = view_directions(specimen, 25)
    assert views.shape == (25, 2)
    directions = rotation_from_euler(views[:, 0], views[:, 1], 0.0)[:, 2]
    for index, direction in enumerate(directions):
        others = np.delete(directions, index, axis=0)
        cosines = (others @ (specimen.symmetry @ direction).T).max()
        assert np.rad2deg(np.arccos(min(cosines, 1.0))) > apart


def test_splatting_keeps_weight_and_place() -> None:
    image = splat(np.array([[3.25, 5.5], [100.0, 0.0]]), np.array([2.0, 9.0]), (10, 10))
    assert image.sum() == pytest.approx(2.0)
    rows, columns = np.mgrid[:10, :10]
    assert (image * rows).sum() / 2 == pytest.approx(3.25)
    assert (image * columns).sum() / 2 == pytest.approx(5.5)


def test_a_projection_has_the_specimens_potential_in_its_middle() -> None:
    specimen = make_specimen("barrel")
    image = project(specimen, rotation_from_euler([20.0], [50.0], [70.0]), 3.0, 96)[0]
    assert image.dtype == np.float32
    assert image.sum() * 3.0**2 == pytest.approx(specimen.weights.sum(), rel=1e-3)
    rows, columns = np.mgrid[:96, :96] - 48
    assert (image * rows).sum() / image.sum() == pytest.approx(0, abs=0.02)
    assert (image * columns).sum() / image.sum() == pytest.approx(0, abs=0.02)


def test_shifts_move_a_projection_as_told() -> None:
    specimen = make_specimen("asymmetric")
    rotation = rotation_from_euler([20.0], [50.0], [70.0])
    still = project(specimen, rotation, 3.0, 96)[0]
    moved = project(specimen, rotation, 3.0, 96, np.array([[4.0, -7.0]]))[0]
    assert np.allclose(moved, np.roll(still, (4, -7), (0, 1)), atol=0.01 * still.max())


def test_psi_turns_a_projection_in_its_plane() -> None:
    specimen = make_specimen("asymmetric")
    still, turned = project(specimen, rotation_from_euler([20.0] * 2, [50.0] * 2, [0.0, 90.0]), 3.0, 96)
    # psi = 90° takes (x, y) to (y, -x): a pixel at (row, column) goes to (-column, row)
    expected = np.zeros_like(still)
    expected[1:, 1:] = still[1:, 1:].T[::-1]
    assert np.corrcoef(expected.ravel(), turned.ravel())[0, 1] > 0.999


def test_the_barrels_top_view_is_a_ring_of_seven() -> None:
    image = project(make_specimen("barrel"), rotation_from_euler([0.0], [0.0], [0.0]), 3.0, 96)[0]
    angles = np.deg2rad(np.arange(0, 360, 2))
    ring = image[np.rint(48 + 16 * np.sin(angles)).astype(int), np.rint(48 + 16 * np.cos(angles)).astype(int)]
    spectrum = np.abs(np.fft.rfft(ring))
    assert np.argmax(spectrum[1:15]) + 1 == 7
    assert image[46:51, 46:51].mean() < 0.1 * ring.mean()
