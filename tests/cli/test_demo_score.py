from pathlib import Path

import numpy as np
import pytest

from beamside.cli.demo_score import Score, read_shifts
from beamside.formats.star import StarBlock, write_star
from beamside.simulate.score import Picks, grid_points

SHAPE = (600, 900)
FRAMES = 4


def local(points: np.ndarray) -> np.ndarray:
    """A local motion of degree 4 along each axis, growing with time: (frames, points, 2) (y, x) in pixels."""
    y, x = (points / SHAPE - 0.5).T
    time = np.arange(FRAMES)[:, None]
    return np.stack([time * (1 + y - 3 * y**3 * x + x**4), -(time**2) * (x - 2 * y**2 * x**2)], axis=-1)


def write_movie_star(path: Path, patches: tuple[int, int]) -> np.ndarray:
    global_shifts = np.stack([np.linspace(0, 5, FRAMES), np.linspace(0, -2, FRAMES)], axis=-1)
    frames = [[index + 1, float(x), float(y)] for index, (y, x) in enumerate(global_shifts)]
    blocks = [
        StarBlock("global_shift", ["rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"], frames)
    ]
    rows, columns = patches
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    centres = np.stack([y.ravel() * SHAPE[0], x.ravel() * SHAPE[1]], axis=-1)
    tracks = local(centres)
    if rows * columns > 1:
        table = [
            [frame + 1, float(cx), float(cy), float(tracks[frame, index, 1]), float(tracks[frame, index, 0])]
            for index, (cy, cx) in enumerate(centres)
            for frame in range(FRAMES)
        ]
        names = ["FrameNumber", "", "", "ShiftX", "ShiftY"]
        labels = [f"rlnMicrograph{name}" if name else "" for name in names]
        labels[1:3] = ["rlnCoordinateX", "rlnCoordinateY"]
        blocks.append(StarBlock("local_shift", labels, table))
    write_star(path, blocks)
    return global_shifts


def test_shifts_between_patches_are_those_of_the_smooth_motion(tmp_path: Path) -> None:
    global_shifts = write_movie_star(tmp_path / "movie.star", (5, 5))
    points = grid_points(SHAPE)
    np.testing.assert_allclose(
        read_shifts(tmp_path / "movie.star")(points), global_shifts[:, None] + local(points), atol=1e-3
    )


def test_without_local_motion_the_shifts_are_the_same_everywhere(tmp_path: Path) -> None:
    global_shifts = write_movie_star(tmp_path / "movie.star", (1, 1))
    shifts = read_shifts(tmp_path / "movie.star")(np.array([[10.0, 20.0], [500.0, 800.0]]))
    np.testing.assert_allclose(shifts, np.repeat(global_shifts[:, None], 2, axis=1), atol=1e-5)


class TestLines:
    GOOD = Score((0.3, 0.5), (3.0, 2.0), (10.0, 20.0), (30.0, 90.0), Picks(95, 100, 98))

    def test_numbers_have_units_and_what_is_asked(self) -> None:
        lines = {line.what: line for line in self.GOOD.lines()}
        assert lines["Motion"].result.startswith("0.41 Å rms")
        assert lines["Picking"].result.startswith("recall 0.950, precision 0.969, F1 0.960")
        assert all(line.reached for line in lines.values())

    @pytest.mark.parametrize(
        ("score", "missed"),
        [
            (Score((0.9,), (3.0,), (), (), Picks(0, 0, 0)), "Motion"),
            (Score((), (), (10.0, 60.0), (5.0, 5.0), Picks(0, 0, 0)), "Defocus"),
            (Score((), (), (10.0, 10.0), (5.0, 500.0), Picks(0, 0, 0)), "Astigmatism"),
            (Score((), (), (), (), Picks(50, 100, 60)), "Picking"),
        ],
    )
    def test_a_number_that_misses_is_not_called_reached(self, score: Score, missed: str) -> None:
        assert [line.what for line in score.lines() if not line.reached] == [missed]

    def test_without_results_there_is_nothing_to_say(self) -> None:
        assert Score((), (), (), (), Picks(0, 0, 0)).lines() == []
