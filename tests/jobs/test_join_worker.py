"""Joining the particles of a micrograph: images go with their rows, and duplicates are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import read_star, write_star
from beamside.formats.star_parts import PartsWriter, StarParts
from beamside.jobs.base import Item, Optics, Result, Row, Workspace
from beamside.jobs.extract import particles_block
from beamside.jobs.join import Joining, JoinParameters
from beamside.jobs.join_worker import join
from beamside.jobs.ports import Given

OPTICS = Optics(1.0, 300.0, 2.7, 0.1, 1.0)


def extracted(root: Path, name: str, places: list[tuple[float, float]], *, size: int = 4) -> Given:
    """Particles at these places of a micrograph, in Å; the image of each has its number, and better picks come last."""
    values = {"image_pixel_size": 2.0, "image_size": size, "box": 2 * size, "max_diameter": 100.0 + len(places)}
    if not places:
        return Given(Result(metrics={"extracted": 0.0}, values=values))
    stack, star = f"{name}.mrcs", f"{name}.star"
    images = np.stack([np.full((size, size), number, np.float32) for number in range(len(places))])
    write_mrc(root / stack, images, 2.0)
    rows = [
        [x, y, float(number), 0, 0.0, f"{number + 1:06d}@{stack}", "m.mrc", 1, *[1.0] * 8]
        for number, (x, y) in enumerate(places)
    ]
    write_star(root / star, [particles_block(rows)])
    outputs = {"particles": stack, "particles_star": star}
    return Given(Result({"extracted": float(len(places))}, outputs, values))


def joined(root: Path, distance: float = 30.0, **inputs: Given) -> tuple[Result, list[float], list[float]]:
    """Return the result, the x of each row, and the number in each image."""
    workspace = Workspace(root, "JoinStar/job009", OPTICS)
    result = join(Item("raw/m", inputs), JoinParameters(join_duplicate_distance=distance), workspace)
    if "particles" not in result.outputs:
        return result, [], []
    table = read_star(root / result.outputs["particles_star"])["images"]
    images = np.asarray(read_mrc(root / result.outputs["particles"]))
    images = images.reshape(-1, *images.shape[-2:])
    numbers = [int(str(name).split("@")[0]) for name in table.column("rlnImageName")]
    assert numbers == list(range(1, len(images) + 1))
    return result, [float(x) for x in table.column("rlnCoordinateX")], [float(image[0, 0]) for image in images]


def test_particles_of_both_are_there_and_those_of_the_second_that_lie_on_the_first_are_not(tmp_path: Path) -> None:
    first = extracted(tmp_path, "a", [(0.0, 0.0), (100.0, 0.0)])
    second = extracted(tmp_path, "b", [(20.0, 0.0), (200.0, 0.0)])
    result, xs, images = joined(tmp_path, first=first, second=second)
    assert xs == [0.0, 100.0, 200.0]
    assert images == [0.0, 1.0, 1.0]
    assert result.metrics == {"extracted": 3.0, "duplicates": 1.0}
    assert result.values["max_diameter"] == 102.0


def test_of_two_in_one_input_the_better_pick_is_kept(tmp_path: Path) -> None:
    result, xs, images = joined(tmp_path, first=extracted(tmp_path, "a", [(0.0, 0.0), (5.0, 0.0)]))
    assert (xs, images) == ([5.0], [1.0])
    assert result.metrics["duplicates"] == 1.0


def test_without_a_distance_all_are_kept(tmp_path: Path) -> None:
    first, second = (extracted(tmp_path, name, [(0.0, 0.0)]) for name in "ab")
    assert joined(tmp_path, 0.0, first=first, second=second)[1] == [0.0, 0.0]


@pytest.mark.parametrize("empty", ["first", "second"])
def test_an_input_without_particles_adds_none(tmp_path: Path, empty: str) -> None:
    full = "second" if empty == "first" else "first"
    inputs = {empty: extracted(tmp_path, "a", []), full: extracted(tmp_path, "b", [(1.0, 1.0)])}
    assert joined(tmp_path, **inputs)[1] == [1.0]


def test_no_particles_at_all_are_no_failure(tmp_path: Path) -> None:
    result, _, _ = joined(tmp_path, first=extracted(tmp_path, "a", []))
    assert result.metrics == {"extracted": 0.0, "duplicates": 0.0}
    assert not result.outputs


def test_particles_of_different_sizes_are_refused_in_words(tmp_path: Path) -> None:
    first, second = extracted(tmp_path, "a", [(0.0, 0.0)]), extracted(tmp_path, "b", [(90.0, 0.0)], size=6)
    with pytest.raises(ProcessingError, match=r"4 px of 2 Å and 6 px of 2 Å\. Extract them with the same box"):
        joined(tmp_path, first=first, second=second)


def test_the_table_of_all_keeps_the_rows_of_files_that_were_cleaned_and_they_are_written_again(tmp_path: Path) -> None:
    first, second = extracted(tmp_path, "a", [(0.0, 0.0)]), extracted(tmp_path, "b", [(100.0, 0.0)])
    result, _, _ = joined(tmp_path, first=first, second=second)
    row, job = Row(Item("raw/m"), result), "JoinStar/job009"

    def table() -> int:
        content = Joining().star_files([row], JoinParameters(), OPTICS, job, tmp_path)["join_particles.star"]
        assert isinstance(content, StarParts)
        PartsWriter().write(tmp_path / job / "join_particles.star", content)
        return len(read_star(tmp_path / job / "join_particles.star")["particles"])

    assert table() == 2
    star = tmp_path / result.outputs["particles_star"]
    content = star.read_bytes()
    star.unlink()
    assert table() == 2, "a selection must not shrink because RELION has cleaned"
    assert Joining().restore([result], job, tmp_path) == 1
    assert read_star(star)["images"].rows == read_star(tmp_path / job / "join_particles.star")["particles"].rows
    assert len(star.read_bytes()) == pytest.approx(len(content), rel=0.1)
