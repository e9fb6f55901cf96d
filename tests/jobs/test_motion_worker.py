"""Motion correction of one movie file: the files that it writes, and what the STAR files say of them."""

from pathlib import Path

import numpy as np
import pytest

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_header, read_mrc, write_mrc
from beamside.formats.star import read_star
from beamside.jobs import motion_worker
from beamside.jobs.base import Item, Optics, Result, Row, Workspace
from beamside.jobs.motion import MotionCorrection, MotionParameters
from beamside.simulate.movie import MovieSettings, simulate_movie

SETTINGS = MovieSettings(size=(256, 320), frames=6, pixel_size=1.35, dose_per_frame=2.0)
OPTICS = Optics(1.35, 300.0, 2.7, 0.1, 2.0)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one simulated movie and its gain reference."""
    root = tmp_path_factory.mktemp("project")
    movie = simulate_movie(SETTINGS, seed=3)
    (root / "raw").mkdir()
    write_mrc(root / "raw" / "movie.mrcs", movie.counts.astype(np.int16), 1.35)
    write_mrc(root / "raw" / "gain.mrc", movie.gain.gain, 1.35)
    return root


def correct(project: Path, job: str, **parameters: object) -> tuple[Result, Row]:
    source = Result(outputs={"movie": "raw/movie.mrcs"}, values={"gain": "raw/gain.mrc"})
    item = Item("raw/movie", {"import": source})
    chosen = MotionParameters(**({"patches_x": 1, "patches_y": 1} | parameters))
    result = motion_worker.correct(item, chosen, Workspace(project, f"MotionCorr/{job}", OPTICS))
    return result, Row(item, result)


def pixels(project: Path, path: str) -> np.ndarray:
    return np.asarray(read_mrc(project / path), dtype=np.float64).reshape(-1)


def test_a_movie_gives_one_sum_and_nothing_that_was_not_asked_for(project: Path) -> None:
    result, _ = correct(project, "job002")
    assert set(result.outputs) == {"micrograph", "power_spectrum", "thumbnail", "motion_plot", "motion_star"}
    assert read_header(project / result.outputs["micrograph"]).mode == 2


def test_sums_on_request_have_relions_names_and_columns(project: Path) -> None:
    parameters = {"save_unweighted": True, "even_odd": True}
    result, row = correct(project, "job003", **parameters)
    names = {role: Path(result.outputs[role]).name for role in ("unweighted", "even", "odd")}
    assert names == {"unweighted": "movie_noDW.mrc", "even": "movie_EVN.mrc", "odd": "movie_ODD.mrc"}
    plain, even, odd = (pixels(project, result.outputs[role]) for role in names)
    assert np.allclose(even + odd, plain, atol=1e-3), "every frame is in one of the two"
    assert even.sum() == pytest.approx(plain.sum() / 2, rel=0.02)
    star = MotionCorrection().star_files([row], MotionParameters(**parameters), OPTICS, "MotionCorr/job003", project)
    micrographs = star["corrected_micrographs.star"][1]
    assert not isinstance(micrographs, str)
    record = micrographs.records()[0]
    assert record["rlnMicrographNameNoDW"] == result.outputs["unweighted"]
    assert record["rlnMicrographNameEven"] == result.outputs["even"]
    assert record["rlnMicrographNameOdd"] == result.outputs["odd"]
    assert record["rlnMicrographName"] == result.outputs["micrograph"]


def test_half_precision_keeps_the_sums(project: Path) -> None:
    full, _ = correct(project, "job002")
    half, _ = correct(project, "job004", float16=True, save_unweighted=True)
    for role in ("micrograph", "unweighted"):
        assert read_header(project / half.outputs[role]).mode == 12
    first, second = (pixels(project, result.outputs["micrograph"]) for result in (full, half))
    assert np.abs(first - second).max() < 1e-3 * np.abs(first).max()


def test_numbers_too_large_for_half_precision_are_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    frames = np.random.default_rng(1).normal(60000, 10, (4, 64, 64)).astype(np.float32)
    write_mrc(tmp_path / "raw" / "movie.mrcs", frames, 1.35)
    item = Item("raw/movie", {"import": Result(outputs={"movie": "raw/movie.mrcs"})})
    with pytest.raises(ProcessingError, match="switch float16 off"):
        motion_worker.correct(item, MotionParameters(float16=True), Workspace(tmp_path, "MotionCorr/job002", OPTICS))


def test_a_movie_too_large_for_memory_is_read_twice_and_gives_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = correct(project, "job007", patches_x=3, patches_y=3)
    monkeypatch.setattr(motion_worker, "_HELD_BYTES", 0)
    monkeypatch.setattr("beamside.imaging.motion_frames._GROUP_BYTES", 2 * 256 * 320 * 2)
    streamed, _ = correct(project, "job005", patches_x=3, patches_y=3)
    first, second = (pixels(project, result.outputs["micrograph"]) for result in (held, streamed))
    assert np.allclose(first, second, atol=1e-4)
    assert held.metrics == pytest.approx(dict(streamed.metrics))


def test_binning_is_told_in_the_star_files(project: Path) -> None:
    result, row = correct(project, "job006", binning=2.0)
    assert read_header(project / result.outputs["micrograph"]).shape == (1, 128, 160)
    general = read_star(project / result.outputs["motion_star"])["general"]
    assert float(general.single("rlnMicrographBinning")) == 2.0
    assert float(general.single("rlnMicrographOriginalPixelSize")) == 1.35
    star = MotionCorrection().star_files([row], MotionParameters(binning=2.0), OPTICS, "MotionCorr/job006", project)
    optics = star["corrected_micrographs.star"][0]
    assert not isinstance(optics, str)
    assert float(optics.single("rlnMicrographPixelSize")) == pytest.approx(2.7)
