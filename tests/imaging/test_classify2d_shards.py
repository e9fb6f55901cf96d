"""An iteration of 2D classification in parts: the same result however it is divided, by whomever it is done."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beamside.errors import CorruptFileError, InputError
from beamside.formats.mrc import write_mrc
from beamside.imaging.classify2d import ClassifySettings, State, classify, file_stack
from beamside.imaging.classify2d.geometry import geometry_of
from beamside.imaging.classify2d.particles import Particles
from beamside.imaging.classify2d.shards import local_workers
from beamside.imaging.classify2d.stack import as_stack
from beamside.simulate.particles import ParticleStack, simulate_stack
from beamside.simulate.specimen import make_specimen, view_directions

SETTINGS = ClassifySettings(
    classes=4, pixel_size=8.0, particle_diameter=190, max_shift=20, start_resolution=40, seed=3, max_iterations=20
)


@cache
def simulated() -> tuple[ParticleStack, np.ndarray]:
    specimen = make_specimen("asymmetric")
    stack = simulate_stack(specimen, view_directions(specimen, 3), 90, 32, 8.0, 0.5, 5, max_shift=1.5)
    defocus = np.array([[each.u, each.v, each.angle, 0.0] for each in stack.defocus])
    return stack, defocus[stack.micrograph]


def classified(**more: Any) -> State:
    stack, ctf = simulated()
    groups = np.arange(len(ctf)) % 2
    return classify(stack.images, ctf, groups, SETTINGS, iterations=2, **more)


@cache
def in_shards_of_40() -> State:
    return classified(shard_particles=40)


class Elsewhere(Executor):
    """Sends work and results through pickle, as another process or machine would get them."""

    def map(self, function: Callable[..., Any], *many: Iterable[Any], **_: Any) -> Iterator[Any]:  # type: ignore[override]
        for arguments in zip(*many, strict=False):
            task, values = pickle.loads(pickle.dumps((function, arguments)))
            yield pickle.loads(pickle.dumps(task(*values)))


def same(first: State, second: State, tolerance: float) -> None:
    assert np.array_equal(first.label, second.label)
    assert first.current_resolution == second.current_resolution
    for name in ("references", "noise", "class_weights", "psi", "shift", "pmax"):
        one, other = getattr(first, name), getattr(second, name)
        assert np.abs(one - other).max() <= tolerance * np.abs(one).max(), name


def test_more_workers_change_nothing() -> None:
    alone = in_shards_of_40()
    with ThreadPoolExecutor(3) as pool:
        same(alone, classified(shard_particles=40, executor=pool), 0.0)
    same(alone, classified(shard_particles=40, executor=Elsewhere()), 0.0)


def test_the_size_of_shards_changes_no_more_than_rounding() -> None:
    same(classified(), classified(shard_particles=25), 2e-3)


def test_particles_that_there_is_no_room_to_keep_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = classified()
    monkeypatch.setattr("beamside.imaging.classify2d.shards._CACHE_BYTES", 0)
    same(kept, classified(), 2e-3)


def test_only_the_particles_that_are_asked_for_are_transformed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, _ = simulated()
    geometry = geometry_of(32, SETTINGS, "cpu")
    groups = np.zeros(90, np.int64)
    particles = Particles(as_stack(stack.images), None, groups, geometry, keep=False)
    everything = Particles(as_stack(stack.images), None, groups, geometry, keep=True)
    transformed: list[int] = []
    forward = geometry.whole().forward
    monkeypatch.setattr(
        geometry.whole(), "forward", lambda images: (transformed.append(len(images)), forward(images))[1]
    )
    wanted = torch.tensor([3, 40, 41, 88])
    found = particles.rings(wanted, geometry.grid)
    assert sum(transformed) == 4
    assert torch.allclose(found, everything.rings(wanted, geometry.grid), atol=1e-5)
    assert torch.allclose(particles.power, everything.power, rtol=1e-4)


def test_images_may_stay_in_their_files(tmp_path: Path) -> None:
    stack, ctf = simulated()
    files = []
    for number, (first, last) in enumerate([(0, 11), (11, 40), (40, 90)]):
        files.append((tmp_path / f"{number}.mrcs", last - first))
        write_mrc(files[-1][0], stack.images[first:last], 8.0)
    images = file_stack(files)
    assert images.count == 90
    for first, last in [(0, 90), (5, 12), (11, 40), (39, 41), (89, 90)]:
        assert np.array_equal(images.part(first, last).read(0, last - first), stack.images[first:last])
    found = classify(images, ctf, np.arange(90) % 2, SETTINGS, iterations=2, shard_particles=40)
    same(found, in_shards_of_40(), 0.0)


def test_a_file_that_is_not_as_its_list_says_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    write_mrc(path, np.zeros((3, 32, 32), np.float32), 8.0)
    with pytest.raises(CorruptFileError, match=r"a\.mrcs has 3 images"):
        file_stack([(path, 4)])
    with pytest.raises(InputError, match="empty"):
        file_stack([])


def test_a_particle_that_is_not_numbers_is_named_by_its_place_in_the_whole_stack() -> None:
    stack, ctf = simulated()
    images = stack.images.copy()
    images[57, 16, 16] = np.nan
    with pytest.raises(InputError, match="Particle 58 "):
        classify(images, ctf, None, SETTINGS, iterations=1, shard_particles=40)


def test_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    with local_workers(2) as workers:
        assert workers is not None
        assert torch.get_num_threads() == 1
    with local_workers(1) as workers:
        assert workers is None
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graphics_card_finds_the_same() -> None:
    alone, card = classified(), classified(device="cuda")
    assert (alone.label == card.label).mean() > 0.95
    assert np.corrcoef(alone.references.ravel(), card.references.ravel())[0, 1] > 0.98


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graphics_card_finds_the_same_again_to_the_last_bit() -> None:
    first, second = classified(device="cuda"), classified(device="cuda")
    assert (first.label == second.label).all()
    assert (first.references == second.references).all()
