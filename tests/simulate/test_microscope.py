import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import mrcfile
import numpy as np
import pytest
import tifffile

from beamside.formats.movies import open_movie
from beamside.formats.rendering import Rendering
from beamside.simulate.microscope import movie_name
from beamside.simulate.movie import MovieTruth, simulate_movie

OPTIONS = ["--size", "128", "--frames", "5", "--rate", "6000", "--seed", "9", "--pixel-size", "3"]


def command(folder: Path, movies: int, *more: str) -> list[str]:
    places = ["--output", str(folder / "the camera"), "--truth", str(folder / "truth")]
    return [sys.executable, "-m", "beamside.simulate.microscope", *places, "--movies", str(movies), *OPTIONS, *more]


def run(folder: Path, movies: int, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, movies, *more), capture_output=True, text=True, timeout=120, check=False)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    done = run(folder, 2)
    assert done.returncode == 0, done.stderr
    assert "All 2 movies are written." in done.stdout
    return folder


def test_movies_gain_and_metadata_are_in_the_camera_folder_and_the_truth_is_not(session: Path) -> None:
    names = sorted(path.name for path in (session / "the camera").iterdir())
    stems = [movie_name(9, index) for index in range(2)]
    assert names == sorted(
        [f"{stem}_Fractions.tiff" for stem in stems] + [f"{stem}.xml" for stem in stems] + ["gain.mrc"]
    )
    assert sorted(path.name for path in (session / "truth").iterdir()) == [f"{stem}.json" for stem in stems]


def test_a_movie_is_lzw_with_a_page_for_each_frame(session: Path) -> None:
    with tifffile.TiffFile(session / "the camera" / f"{movie_name(9, 1)}_Fractions.tiff") as file:
        assert len(file.pages) == 5
        assert file.pages[0].compression == tifffile.COMPRESSION.LZW
        counts = file.asarray()[:, ::-1]
    truth = MovieTruth.load(session / "truth" / f"{movie_name(9, 1)}.json")
    assert counts.dtype == np.uint8
    assert np.array_equal(counts, simulate_movie(truth.settings, seed=truth.seed).counts)


def test_the_gain_file_is_that_of_the_movies(session: Path) -> None:
    with mrcfile.open(session / "the camera" / "gain.mrc") as file:
        gain = file.data.copy()
    truth = MovieTruth.load(session / "truth" / f"{movie_name(9, 0)}.json")
    assert np.array_equal(gain, simulate_movie(truth.settings, seed=truth.seed).gain.gain)


def test_the_metadata_tells_the_pixel_size(session: Path) -> None:
    root = ElementTree.parse(session / "the camera" / f"{movie_name(9, 0)}.xml").getroot()
    value = root.find(".//{*}pixelSize/{*}x/{*}numericValue")
    assert value is not None
    assert float(value.text or "") == pytest.approx(3e-10)


def test_the_same_options_give_the_same_bytes(session: Path, tmp_path: Path) -> None:
    assert run(tmp_path, 2).returncode == 0
    assert digests(tmp_path / "the camera") == digests(session / "the camera")
    assert digests(tmp_path / "truth") == digests(session / "truth")


def test_another_run_goes_on_after_the_last_complete_movie(session: Path, tmp_path: Path) -> None:
    assert run(tmp_path, 1).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "the camera").iterdir()}
    done = run(tmp_path, 2)
    assert "1 of 2 movies are there already." in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert digests(tmp_path / "the camera") == digests(session / "the camera")


def test_a_stop_ends_it_cleanly_and_a_new_start_completes_it(session: Path, tmp_path: Path) -> None:
    # a slow microscope, so that the signal comes before the second movie
    slow = command(tmp_path, 2, "--rate", "1")
    process = subprocess.Popen(slow, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("1/2")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert "Stopped." in output
    assert len(list((tmp_path / "truth").iterdir())) == 1
    assert run(tmp_path, 2).returncode == 0
    assert digests(tmp_path / "the camera") == digests(session / "the camera")


def test_a_movie_grows_under_its_final_name(session: Path, tmp_path: Path) -> None:
    final = session / "the camera" / f"{movie_name(9, 0)}_Fractions.tiff"
    growing = tmp_path / "the camera" / final.name
    sizes = set()
    with subprocess.Popen(command(tmp_path, 1, "--rate", "30"), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if growing.exists():
                sizes.add(growing.stat().st_size)
            time.sleep(0.005)
    sizes.add(growing.stat().st_size)
    assert len(sizes) > 2
    assert max(sizes) == final.stat().st_size


@pytest.mark.parametrize(("option", "value"), [("--dose", "2"), ("--seed", "10"), ("--specimen", "shell")])
def test_other_settings_in_the_same_folder_are_refused(session: Path, option: str, value: str) -> None:
    done = run(session, 3, option, value)
    assert done.returncode == 1
    assert "other settings" in done.stderr
    assert len(list((session / "truth").iterdir())) == 2


def test_a_movie_that_is_complete_is_not_written_again(session: Path, tmp_path: Path) -> None:
    assert run(tmp_path, 1).returncode == 0
    movie = tmp_path / "the camera" / f"{movie_name(9, 0)}_Fractions.tiff"
    before = movie.stat().st_mtime_ns
    # as if it had been killed between the movie and its metadata
    (tmp_path / "truth" / f"{movie_name(9, 0)}.json").unlink()
    (tmp_path / "the camera" / f"{movie_name(9, 0)}.xml").unlink()
    assert run(tmp_path, 2).returncode == 0
    assert movie.stat().st_mtime_ns == before
    assert digests(tmp_path / "the camera") == digests(session / "the camera")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--specimen", "teapot", "teapot"), ("--size", "8", "too small"), ("--rate", "0", "--rate")],
)
def test_bad_options_get_a_sentence(tmp_path: Path, option: str, value: str, word: str) -> None:
    done = run(tmp_path, 1, option, value)
    assert done.returncode == 2
    assert word in done.stderr
    assert not (tmp_path / "the camera").exists()


def test_the_truth_may_not_be_in_the_camera_folder(tmp_path: Path) -> None:
    done = run(tmp_path, 1, "--truth", str(tmp_path / "the camera" / "truth"))
    assert done.returncode == 2
    assert "inside the camera's folder" in done.stderr


def test_eer_movies_have_the_same_electrons(session: Path, tmp_path: Path) -> None:
    done = run(tmp_path, 1, "--eer", "40")
    assert done.returncode == 0, done.stderr
    truth = MovieTruth.load(session / "truth" / f"{movie_name(9, 0)}.json")
    with open_movie(tmp_path / "the camera" / f"{movie_name(9, 0)}_EER.eer", Rendering(1, 40)) as movie:
        assert np.array_equal(movie.read(), np.minimum(simulate_movie(truth.settings, seed=truth.seed).counts, 40))


def test_importing_it_is_light() -> None:
    code = "import sys, beamside.simulate.microscope; print([name for name in ('torch', 'scipy', 'tifffile') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
