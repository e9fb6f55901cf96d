"""Motion correction of one movie file: the files that it writes, and what the STAR files say of them."""

import struct
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beamside.errors import ConfigError, ProcessingError
from beamside.formats.eer import Coding
from beamside.formats.mrc import read_header, read_mrc, write_mrc
from beamside.formats.star import StarBlock, read_star
from beamside.jobs import motion_worker
from beamside.jobs.base import Item, Optics, Result, Row, Workspace
from beamside.jobs.fractions import left_over_sentence
from beamside.jobs.motion import MotionCorrection, MotionParameters
from beamside.jobs.ports import Given, Wiring
from beamside.jobs.worker import Task, run_task
from beamside.simulate.eer import eer_bytes, split_counts
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
    source = Result(outputs={"movie": "raw/movie.mrcs"}, values={"gain": "raw/gain.mrc", "gain_sha256": "5b48"})
    item = Item("raw/movie", {"movies": Given(source)})
    chosen = MotionParameters(**({"patches_x": 1, "patches_y": 1} | parameters))
    result = motion_worker.correct(item, chosen, Workspace(project, f"MotionCorr/{job}", OPTICS))
    return result, Row(item, result)


def pixels(project: Path, path: str) -> np.ndarray:
    return np.asarray(read_mrc(project / path), dtype=np.float64).reshape(-1)


def test_a_movie_gives_one_sum_and_nothing_that_was_not_asked_for(project: Path) -> None:
    result, _ = correct(project, "job002")
    assert set(result.outputs) == {"micrograph", "power_spectrum", "thumbnail", "motion_plot", "motion_star"}
    assert read_header(project / result.outputs["micrograph"]).mode == 2
    general = read_star(project / result.outputs["motion_star"])["general"]
    assert (general.single("rlnMicrographGainName"), result.values["gain"]) == ("raw/gain.mrc", "raw/gain.mrc")
    assert result.values["gain_sha256"] == "5b48", "each micrograph says by which content it was corrected"


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
    item = Item("raw/movie", {"movies": Given(Result(outputs={"movie": "raw/movie.mrcs"}))})
    with pytest.raises(ProcessingError, match="switch float16 off"):
        motion_worker.correct(item, MotionParameters(float16=True), Workspace(tmp_path, "MotionCorr/job002", OPTICS))


def test_a_movie_too_large_for_memory_is_read_twice_and_gives_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, _ = correct(project, "job007", patches_x=3, patches_y=3)
    monkeypatch.setattr(motion_worker, "_HELD_BYTES", 0)
    monkeypatch.setattr("beamside.imaging.motion.frames._GROUP_BYTES", 2 * 256 * 320 * 2)
    streamed, _ = correct(project, "job005", patches_x=3, patches_y=3)
    first, second = (pixels(project, result.outputs["micrograph"]) for result in (held, streamed))
    assert np.allclose(first, second, atol=1e-4)
    assert held.metrics == pytest.approx(dict(streamed.metrics))


@pytest.mark.parametrize("damage", ["cut", "fewer images than bytes", "a huge image"])
def test_a_damaged_movie_fails_with_a_sentence_that_names_it(project: Path, tmp_path: Path, damage: str) -> None:
    (tmp_path / "raw").mkdir()
    data = bytearray((project / "raw/movie.mrcs").read_bytes())
    if damage == "cut":
        del data[-1000:]
    else:
        struct.pack_into("<3i", data, 0, *((320, 256, 2) if damage != "a huge image" else (1 << 23, 1 << 23, 6)))
    (tmp_path / "raw/bad.mrcs").write_bytes(data)
    source = Result(outputs={"movie": "raw/bad.mrcs"}).to_json()
    optics = {field: getattr(OPTICS, field) for field in OPTICS.__dataclass_fields__}
    wiring: Wiring = {"motion": {"movies": "import"}, "import": {}}
    task = Task(
        "motion", "motion", str(tmp_path), "MotionCorr/job002", {}, optics, [("raw/bad", {"import": source})], wiring
    )
    outcome = run_task(asdict(task))
    assert outcome["result"] is None
    assert "raw/bad.mrcs" in outcome["reason"]
    assert outcome["log"] == "", "not a traceback"


def outcome_on(project: Path, device: str, job: str) -> dict[str, Any]:
    source = Result(outputs={"movie": "raw/movie.mrcs"}, values={"gain": "raw/gain.mrc", "gain_sha256": "5b48"})
    optics = {field: getattr(OPTICS, field) for field in OPTICS.__dataclass_fields__}
    wiring: Wiring = {"motion": {"movies": "import"}, "import": {}}
    items = [("raw/movie", {"import": source.to_json()})]
    task = Task("motion", "motion", str(project), f"MotionCorr/{job}", {}, optics, items, wiring, device=device)
    return run_task(asdict(task))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_worker_corrects_a_movie_on_a_gpu_as_on_the_cpu(project: Path) -> None:
    here, there = (outcome_on(project, device, f"job{number}") for number, device in enumerate(("cpu", "cuda"), 20))
    assert there["where"]["device"] == "cuda"
    assert there["gpu_fault"] == {}
    assert there["result"]["metrics"] == pytest.approx(here["result"]["metrics"], rel=0.05, abs=0.1)
    first, second = (pixels(project, outcome["result"]["outputs"]["micrograph"]) for outcome in (here, there))
    assert np.corrcoef(first, second)[0, 1] > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_has_no_memory_for_is_done_on_the_cpu(project: Path) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        outcome = outcome_on(project, "cuda", "job022")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert outcome["reason"] == ""
    assert outcome["where"]["device"] == "cpu"
    assert outcome["gpu_fault"]["memory"]


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


RAW_FRAMES = 60


@pytest.fixture(scope="module")
def eer_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same movie as an EER file, each frame in 60 raw frames, with 7 raw frames more."""
    root = tmp_path_factory.mktemp("project")
    movie = simulate_movie(SETTINGS, seed=3)
    rng = np.random.default_rng(1)
    (root / "raw").mkdir()
    frames = [split_counts(counts, RAW_FRAMES, Coding(7, 2, 2), rng) for counts in movie.counts]
    (root / "raw" / "movie.eer").write_bytes(eer_bytes([*chain(*frames), *frames[0][:7]], SETTINGS.size))
    write_mrc(root / "raw" / "gain.mrc", movie.gain.gain, 1.35)
    return root


def correct_eer(root: Path, job: str, optics: Optics, **parameters: object) -> tuple[Result, StarBlock]:
    values = {"gain": "raw/gain.mrc", "relion_gain": "raw/gain_relion.mrc", "frames": RAW_FRAMES * 6 + 7}
    item = Item("raw/movie", {"movies": Given(Result(outputs={"movie": "raw/movie.eer"}, values=values))})
    chosen = MotionParameters(**({"patches_x": 1, "patches_y": 1} | parameters))
    result = motion_worker.correct(item, chosen, Workspace(root, f"MotionCorr/{job}", optics))
    return result, read_star(root / result.outputs["motion_star"])["general"]


def test_an_eer_movie_gives_what_the_same_counts_give_in_any_other_format(project: Path, eer_project: Path) -> None:
    expected, _ = correct(project, "job002")
    result, general = correct_eer(eer_project, "job002", replace(OPTICS, dose_per_frame=2.0 / RAW_FRAMES), eer_dose=2.0)
    assert np.allclose(
        pixels(project, expected.outputs["micrograph"]), pixels(eer_project, result.outputs["micrograph"]), atol=1e-4
    )
    assert result.metrics["left_over"] == 7
    assert (result.values["frames"], result.values["raw_frames_per_fraction"]) == (6, RAW_FRAMES)
    found = {name: float(general.single(name)) for name in ("rlnImageSizeZ", "rlnEERUpsampling", "rlnEERGrouping")}
    assert found == {"rlnImageSizeZ": 6, "rlnEERUpsampling": 1, "rlnEERGrouping": RAW_FRAMES}
    assert float(general.single("rlnMicrographDoseRate")) == pytest.approx(2.0)
    assert general.single("rlnMicrographGainName") == "raw/gain_relion.mrc"


def test_an_eer_movie_is_rendered_finer_and_its_gain_with_it(eer_project: Path) -> None:
    total = 2.0 / RAW_FRAMES * (RAW_FRAMES * 6 + 7)
    optics = replace(OPTICS, pixel_size=1.35 / 2, total_dose=total)
    result, general = correct_eer(eer_project, "job003", optics, eer_dose=4.0, eer_upsampling=2)
    assert read_header(eer_project / result.outputs["micrograph"]).shape == (1, 512, 640)
    assert read_header(eer_project / result.outputs["micrograph"]).pixel_size == pytest.approx(0.675)
    assert (result.values["frames"], result.metrics["left_over"]) == (3, 7)
    assert float(general.single("rlnEERUpsampling")) == 2
    assert float(general.single("rlnMicrographDoseRate")) == pytest.approx(4.0)
    coarse, _ = correct_eer(eer_project, "job004", replace(OPTICS, total_dose=total), eer_dose=4.0)
    fine = pixels(eer_project, result.outputs["micrograph"]).reshape(256, 2, 320, 2).sum(axis=(1, 3))
    assert np.corrcoef(fine.reshape(-1), pixels(eer_project, coarse.outputs["micrograph"]))[0, 1] > 0.5


def test_a_dose_that_cannot_be_that_of_raw_frames_is_refused(eer_project: Path) -> None:
    with pytest.raises(ConfigError, match=r"367 raw frames, and a dose of 2 e/Å² in each makes 734 .*--total-dose"):
        correct_eer(eer_project, "job005", OPTICS)


def test_relion_is_told_how_eer_movies_are_divided() -> None:
    values = {"source": "/camera/m.eer", "frames": 1005, "relion_gain": "Import/job001/gain_relion.mrc"}
    optics = replace(OPTICS, total_dose=40.2)
    options = MotionCorrection().camera_options(values, MotionParameters(eer_upsampling=2), optics)
    assert (options["eer_grouping"], options["dose_per_frame"]) == ("25", "1")
    assert options["other_args"] == "--eer_upsampling 2"
    assert options["fn_gain_ref"] == "Import/job001/gain_relion.mrc"
    options = MotionCorrection().camera_options({"source": "/camera/m.tiff", "frames": 40}, MotionParameters(), optics)
    assert (options["dose_per_frame"], "eer_grouping" in options) == ("1.005", False)


def test_a_person_is_told_of_raw_frames_that_are_left_over() -> None:
    optics = replace(OPTICS, total_dose=40.2)
    told = left_over_sentence("m.eer", 1005, MotionParameters(), optics)
    assert "40 fractions of 25 raw frames (1 e/Å²); the last 5 raw frames (0.5% of the dose)" in told
    assert left_over_sentence("m.eer", 1000, MotionParameters(), replace(OPTICS, total_dose=40.0)) == ""
    assert left_over_sentence("m.tiff", 1005, MotionParameters(), optics) == ""
