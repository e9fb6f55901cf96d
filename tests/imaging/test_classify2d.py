"""2D classification: finds classes, rotations and shifts; continues exactly; and its parts compute what their formulas say."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from beamside.errors import ConfigError, CorruptFileError, InputError
from beamside.imaging.classify2d import ClassifySettings, State, classify
from beamside.imaging.classify2d.expectation import (
    Sums,
    add_particles,
    log_likelihood_ratio,
    log_prior,
    make_batch,
    make_templates,
    rotations,
    trial_shifts,
)
from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.maximisation import empty_classes, signal_power
from beamside.imaging.classify2d.polar import PolarTransform, make_grid
from beamside.imaging.ctf.model import ctf_2d
from beamside.simulate.particles import ParticleStack, simulate_stack
from beamside.simulate.score import adjusted_rand_index, purity
from beamside.simulate.specimen import make_specimen, view_directions

PIXEL = 8.0
VIEWS = 4
SETTINGS = ClassifySettings(
    classes=6, pixel_size=PIXEL, particle_diameter=190, max_shift=20, start_resolution=40, seed=3
)


@cache
def simulated(count: int = 240, seed: int = 5) -> ParticleStack:
    specimen = make_specimen("asymmetric")
    return simulate_stack(
        specimen, view_directions(specimen, VIEWS), count, 32, PIXEL, 0.5, seed, max_shift=1.5, per_micrograph=20
    )


def ctf_of(stack: ParticleStack) -> np.ndarray:
    defocus = np.array([[each.u, each.v, each.angle, 0.0] for each in stack.defocus])
    return defocus[stack.micrograph]


@cache
def classified() -> State:
    stack = simulated()
    return classify(stack.images, ctf_of(stack), None, SETTINGS)


def turned_back(vectors: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Return the vectors (y, x) of particles in the frame of their class average."""
    cos, sin = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    y, x = vectors.T
    return np.stack([x * sin + y * cos, x * cos - y * sin], axis=1)


def test_particles_of_one_view_come_together() -> None:
    assert purity(classified().label, simulated().view) > 0.95


def test_rotations_are_right_within_each_class() -> None:
    found, stack = classified(), simulated()
    for label in np.flatnonzero(found.counts >= 10):
        members = found.label == label
        view = np.bincount(stack.view[members]).argmax()
        members &= stack.view == view
        difference = np.exp(1j * np.deg2rad(found.psi[members] - stack.psi[members]))
        spread = np.rad2deg(np.sqrt(-2 * np.log(np.abs(difference.mean()))))
        assert spread < 5


def test_shifts_bring_the_particles_of_a_class_to_one_place() -> None:
    found, stack = classified(), simulated()
    for label in np.flatnonzero(found.counts >= 10):
        members = found.label == label
        view = np.bincount(stack.view[members]).argmax()
        members &= stack.view == view
        left = turned_back(found.shift[members] / PIXEL + stack.shift[members], found.psi[members])
        assert np.all(left.std(axis=0) < 0.4)
        assert np.all(np.abs(left.mean(axis=0)) < 2.5)


def test_averages_look_like_the_particles_without_noise() -> None:
    found, stack = classified(), simulated()
    label = int(found.counts.argmax())
    members = np.flatnonzero(found.label == label)
    aligned = align(stack.clean[members], found.psi[members], found.shift[members] / PIXEL)
    expected, got = aligned.mean(axis=0), found.references[label]
    disc = np.hypot(*np.mgrid[-16:16, -16:16]) < 11
    assert np.corrcoef(expected[disc], got[disc])[0, 1] > 0.8


def align(images: np.ndarray, psi: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shift, then turn images as RELION does, by linear interpolation: ``aligned(x, y) = shifted(cx + sy, -sx + cy)`` about the middle."""
    from scipy.ndimage import map_coordinates

    box = images.shape[-1]
    y, x = np.mgrid[:box, :box] - box // 2
    result = np.empty_like(images)
    for number, (image, angle, (dy, dx)) in enumerate(zip(images, np.deg2rad(psi), shift, strict=True)):
        cos, sin = np.cos(angle), np.sin(angle)
        rows = -sin * x + cos * y - dy + box // 2
        columns = cos * x + sin * y - dx + box // 2
        result[number] = map_coordinates(image, [rows, columns], order=1, mode="nearest")
    return result


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    stack = simulated()
    again = classify(stack.images, ctf_of(stack), None, SETTINGS, iterations=2)
    once = classify(stack.images, ctf_of(stack), None, SETTINGS, iterations=2)
    other = classify(stack.images, ctf_of(stack), None, replace(SETTINGS, seed=4), iterations=2)
    assert np.array_equal(once.references, again.references)
    assert np.array_equal(once.psi, again.psi)
    assert not np.array_equal(once.references, other.references)


def test_going_on_from_a_saved_state_equals_not_having_stopped(tmp_path: Path) -> None:
    stack = simulated()
    kept: list[State] = []
    whole = classify(stack.images, ctf_of(stack), None, SETTINGS, iterations=11, on_iteration=kept.append)
    kept[8].save(tmp_path / "checkpoint.npz")
    loaded = State.load(tmp_path / "checkpoint.npz")
    resumed = classify(stack.images, ctf_of(stack), None, SETTINGS, loaded, iterations=2)
    for name in ("references", "label", "psi", "shift", "pmax", "noise", "class_weights"):
        assert np.array_equal(getattr(resumed, name), getattr(whole, name)), name
    assert resumed.iteration == whole.iteration == 11


def test_particles_that_come_later_are_classified_as_well_as_all_at_once() -> None:
    stack = simulated()
    ctf, state = ctf_of(stack), None
    for count in (100, 160, 240):
        state = classify(stack.images[:count], ctf[:count], None, SETTINGS, state)
        assert len(state.label) == count
    assert state is not None
    assert (state.label >= 0).all()
    assert purity(state.label, stack.view) > purity(classified().label, stack.view) - 0.05


def test_classes_of_one_view_become_one_and_the_others_are_left_empty() -> None:
    found, stack = classified(), simulated()
    assert (found.counts > 0).sum() == VIEWS
    assert adjusted_rand_index(found.label, stack.view) > 0.95
    assert not found.references[found.counts == 0].any()


def test_classes_do_not_collapse_when_duplicates_are_kept() -> None:
    found = []
    for seed in (1, 2, 3):
        stack = simulated(seed=seed)
        state = classify(stack.images, ctf_of(stack), None, replace(SETTINGS, merge_duplicates=False), iterations=12)
        assert int((~empty_classes(torch.as_tensor(state.counts))).sum()) > VIEWS
        found.append(purity(state.label, stack.view))
    assert np.mean(found) > 0.95


def test_there_are_as_many_classes_as_the_particles_are_enough_for() -> None:
    stack = simulated()
    few = classify(stack.images[:70], ctf_of(stack)[:70], None, SETTINGS, iterations=2)
    assert len(few.references) == 2
    more = classify(stack.images, ctf_of(stack), None, SETTINGS, few, iterations=10)
    assert len(more.references) == SETTINGS.classes
    assert (more.counts > 0).sum() >= VIEWS


def test_noise_is_not_taken_for_detail() -> None:
    noise = np.random.default_rng(0).standard_normal((120, 32, 32)).astype(np.float32)
    found = classify(noise, None, None, replace(SETTINGS, classes=3))
    assert found.current_resolution == SETTINGS.start_resolution


def test_each_group_has_the_power_of_its_own_noise() -> None:
    stack = simulated()
    groups = (np.arange(len(stack.images)) >= 120).astype(int)
    images = stack.images * np.where(groups, 2.0, 1.0)[:, None, None].astype(np.float32)
    found = classify(images, ctf_of(stack), groups, SETTINGS, iterations=2)
    high = found.noise[:, -4:].mean(axis=1)
    assert high == pytest.approx([1.0, 4.0], rel=0.1)


def test_images_without_ctf_can_be_classified() -> None:
    specimen = make_specimen("asymmetric")
    stack = simulated()
    found = classify(stack.images[:60], None, None, replace(SETTINGS, classes=2), iterations=3)
    assert specimen.diameter > 0
    assert np.isfinite(found.references).all()


def test_fewer_particles_than_classes_are_no_problem() -> None:
    stack = simulated()
    found = classify(stack.images[:4], ctf_of(stack)[:4], None, SETTINGS, iterations=2)
    assert np.isfinite(found.references).all()
    assert found.counts.sum() == 4


def test_resolution_and_quality_are_those_of_signal() -> None:
    found = classified()
    noise = np.random.default_rng(0).standard_normal((120, 32, 32)).astype(np.float32)
    empty = classify(noise, None, None, replace(SETTINGS, classes=3))
    assert found.resolution.min() < 25
    assert np.median(found.quality) > np.median(empty.quality)
    assert found.evidence.mean() > 10 + empty.evidence.mean()


@pytest.mark.parametrize(
    ("images", "ctf", "message"),
    [
        (np.zeros((0, 32, 32), np.float32), None, "empty"),
        (np.zeros((5, 32, 30), np.float32), None, "square"),
        (np.zeros((5, 31, 31), np.float32), None, "even width"),
        (np.zeros((5, 32, 32), np.float32), np.zeros((4, 4)), "CTF has the shape"),
        (np.full((5, 32, 32), np.nan, np.float32), None, "not numbers"),
    ],
)
def test_a_stack_that_cannot_be_used_is_refused(images: np.ndarray, ctf: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classify(images, ctf, None, SETTINGS, iterations=1)


def test_a_state_of_another_classification_is_refused() -> None:
    stack = simulated()
    state = classify(stack.images[:70], ctf_of(stack)[:70], None, SETTINGS, iterations=1)
    with pytest.raises(InputError, match="classes of 32 pixels"):
        classify(stack.images[:70], ctf_of(stack)[:70], None, replace(SETTINGS, classes=1), state)
    with pytest.raises(InputError, match="knows 70 particles"):
        classify(stack.images[:30], ctf_of(stack)[:30], None, SETTINGS, state)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="classes"):
        ClassifySettings(classes=0)
    with pytest.raises(ConfigError, match="max_shift"):
        ClassifySettings(max_shift=-1)


def test_a_damaged_checkpoint_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(CorruptFileError, match="delete it"):
        State.load(path)
    with pytest.raises(FileNotFoundError):
        State.load(tmp_path / "absent.npz")


BOX = 32
BLOBS = [[(3.0, -2.0, 1.0), (-4.0, 1.5, 1.6)], [(0.0, 5.0, 1.2), (-3.0, -3.0, 0.7), (4.0, 0.0, 1.0)]]


def draw(
    blobs: list[tuple[float, float, float]], psi: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Return an image that shifting by `shift` (y, x pixels) and turning by `psi` degrees brings onto that of `blobs`, float64."""
    cos, sin = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    image = np.zeros((BOX, BOX))
    for by, bx, height in blobs:
        # aligned(x, y) = shifted(cx + sy, -sx + cy): what is at (bx, by) in the average is there in the shifted particle
        px, py = cos * bx + sin * by - shift[1], -sin * bx + cos * by - shift[0]
        image += height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.0**2))
    return image


def test_the_log_likelihood_ratio_equals_a_sum_over_all_fourier_pixels_in_float64() -> None:
    noise = 1.7
    transform = PolarTransform(make_grid(BOX, 15, 15.5), 15)
    grid = transform.grid
    rng = np.random.default_rng(2)
    kwargs = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
    plane = ctf_2d((BOX, BOX), 8.0, 6000.0, 5000.0, 30.0, **kwargs).double().numpy()
    image = np.fft.irfft2(np.fft.rfft2(draw(BLOBS[0], 40.0, (1.0, -0.5))) * plane, s=(BOX, BOX))
    image += 0.3 * rng.standard_normal(image.shape) * np.hypot(*(np.mgrid[:BOX, :BOX] - BOX // 2)).__lt__(12)
    radius = grid.radii()[:, None] / (BOX * 8.0)
    angle = torch.arange(grid.angles // 2) * (2 * torch.pi / grid.angles)
    rings_ctf = ctf_on(radius, angle)
    references = transform.forward(torch.as_tensor(np.stack([draw(blobs) for blobs in BLOBS])).float())
    shifts = torch.tensor([[0.0, 0.0], [0.75, -1.25]])
    templates = make_templates(references, grid, shifts, 0.013)
    centres = torch.tensor([[0.5, 0.25]])
    batch = make_batch(
        transform.forward(torch.as_tensor(image).float()[None]),
        rings_ctf[None],
        torch.full((1, grid.rings), noise),
        centres,
        grid,
    )
    ratio = log_likelihood_ratio(templates, batch)[0]
    spectrum = np.fft.fft2(image) / BOX
    full = full_plane(plane)
    angles = rotations(templates)
    where = trial_shifts(templates, batch)[0]
    largest = float(ratio.abs().max())
    for label, trial, turn in [(0, 0, 0), (0, 1, 17), (1, 0, grid.angles // 3), (1, 1, grid.angles - 1)]:
        psi, shift = math.degrees(float(angles[turn])), tuple(where[trial, turn].tolist())
        model = np.fft.fft2(draw(BLOBS[label], psi, shift)) / BOX * full
        expected = ((spectrum * model.conj()).real - 0.5 * np.abs(model) ** 2).sum() / noise
        assert float(ratio[label, trial, turn]) == pytest.approx(expected, abs=0.01 * largest)


def ctf_on(radius: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    from beamside.imaging.ctf.model import aberration_phase, directional_defocus

    defocus = directional_defocus(6000.0, 5000.0, 30.0, angle)
    phase = aberration_phase(radius**2, defocus, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1)
    return torch.sin(phase)


def full_plane(half: np.ndarray) -> np.ndarray:
    """Return the whole plane of a real, symmetric function given in the layout of rfft2."""
    mirrored = np.roll(half[::-1], 1, axis=0)[:, 1:-1][:, ::-1]
    return np.concatenate([half, mirrored], axis=1)


def test_the_sums_are_those_of_turned_and_shifted_particles(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = PolarTransform(make_grid(BOX, 15, 15.5), 15)
    grid = transform.grid
    generator = torch.Generator().manual_seed(1)
    images = torch.as_tensor(np.stack([draw(BLOBS[0], 10), draw(BLOBS[1], 200), draw(BLOBS[1], -70)])).float()
    rings = transform.forward(images)
    templates = make_templates(transform.forward(images[:2]), grid, torch.tensor([[0.0, 0.0], [1.0, -0.5]]), 0.02)
    transfer = 0.5 + torch.rand((3, grid.rings, grid.angles // 2), generator=generator)
    batch = make_batch(rings, transfer, torch.ones(3, grid.rings), torch.zeros(3, 2), grid)
    joint = log_likelihood_ratio(templates, batch) / 20
    joint += log_prior(templates, batch, 2.0)[:, None]
    posterior = torch.softmax(joint.reshape(3, -1), dim=1).view(joint.shape)
    results = []
    for fraction in (0.0, 2.0):
        monkeypatch.setattr("beamside.imaging.classify2d.expectation.SPARSE_FRACTION", fraction)
        monkeypatch.setattr("beamside.imaging.classify2d.expectation.NEGLIGIBLE", 60.0)
        sums = Sums(templates, grid.rings)
        best = add_particles(joint.clone(), templates, batch, sums)
        results.append((*sums.finish(templates), sums.counts, best.pmax, best.evidence))
    for dense, sparse in zip(*results, strict=True):
        assert torch.allclose(dense, sparse, rtol=1e-4, atol=1e-4)
    data, weights, counts, pmax, evidence = results[0]
    assert torch.allclose(counts, posterior.sum(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(pmax, posterior.reshape(3, -1).amax(1), atol=1e-6)
    assert torch.allclose(evidence, torch.logsumexp(joint.reshape(3, -1), 1), atol=1e-4)
    assert float(weights.sum()) == pytest.approx(float(transfer.square().sum()), rel=1e-4)
    # the correlation of the sums with any reference is the posterior's mean of the particles' correlations with it
    products = log_likelihood_ratio(replace(templates, power=torch.zeros_like(templates.power)), batch)
    references = transform.forward(images[:2])
    expected = (posterior * products).sum(dim=(0, 2, 3))
    got = 2 * ((references.conj() * data).real * grid.area()[:, None]).sum(dim=(1, 2))
    assert torch.allclose(got, expected, rtol=1e-3)


def test_signal_power_leaves_out_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.full((5, 3, 4000), 10.0)
    signal = torch.tensor([2.0, 0.5, 0.0])[:, None].sqrt()
    parts = torch.randn((2, 5, 3, 4000), generator=generator) / math.sqrt(2)
    noise = torch.randn((2, 5, 3, 4000), generator=generator) * math.sqrt(10 / 2)
    data = torch.complex(*(10 * signal * parts + noise))
    expected = torch.tensor([2.0, 0.5, 0.0])
    assert torch.allclose(signal_power(data, weights, 1.0), expected, atol=0.05)
    # classes without particles change nothing
    data, weights = (torch.cat([values, torch.zeros_like(values)]) for values in (data, weights))
    assert torch.allclose(signal_power(data, weights, 1.0), expected, atol=0.05)


def test_each_image_has_the_ctf_of_its_own_microscope() -> None:
    settings = ClassifySettings(classes=1, pixel_size=2.0, particle_diameter=60.0, voltage=300.0)
    slow = ClassifySettings(classes=1, pixel_size=2.0, particle_diameter=60.0, voltage=200.0, amplitude_contrast=0.07)
    ctf = torch.tensor([[15000.0, 14000.0, 30.0, 0.0]])
    geometry = Geometry(64, settings, torch.device("cpu"))
    of_both = torch.cat([ctf, ctf]), torch.tensor([[300.0, 2.7, 0.1], [200.0, 2.7, 0.07]])
    found = geometry.transfer(torch.cat(of_both, dim=1), 2, geometry.grid)
    torch.testing.assert_close(found[:1], geometry.transfer(ctf, 1, geometry.grid), atol=1e-4, rtol=0)
    other = Geometry(64, slow, torch.device("cpu")).transfer(ctf, 1, geometry.grid)
    torch.testing.assert_close(found[1:], other, atol=1e-4, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.1
