"""EER movies beside RELION: the same electrons in the same pixels, the same fractions, the same words in the STAR file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.peers.conftest import RunProgram

from beamside.acquisition.gain import prepare_gain
from beamside.formats.eer import Coding, check_eer_complete
from beamside.formats.movies import open_movie
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.rendering import Rendering
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.simulate.eer import Electrons, camera_xml, eer_bytes

pytestmark = pytest.mark.peer

SENSOR = (4096, 4096)  # RELION 3.1 takes no other


def electrons(rng: np.random.Generator, density: np.ndarray | float) -> Electrons:
    pixels = np.flatnonzero(rng.random(SENSOR, np.float32) < density)
    x, y = rng.integers(0, 4, (2, len(pixels)))
    return Electrons(pixels, x, y)


@pytest.mark.parametrize("bits", [(7, 2, 2), (8, 2, 2)])
def test_relion_renders_the_same_pixels(run_program: RunProgram, tmp_path: Path, bits: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    frames = [electrons(rng, density) for density in (0.01, 0.0005, 0.003, 0.01, 0.002)]
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes(frames, SENSOR, Coding(*bits), camera_xml(5, SENSOR, 0.7, 1.0, 0.02)))
    for upsampling in (1, 2):
        options = ["--eer_grouping", "2", "--eer_upsampling", str(upsampling)]
        run_program("relion_convert_to_tiff", "--i", "m.eer", "--o", f"as{upsampling}", *options, cwd=tmp_path)
        with (
            open_movie(tmp_path / f"as{upsampling}" / "m.tif") as theirs,
            open_movie(path, Rendering(upsampling, 2)) as ours,
        ):
            assert (
                (theirs.frames, theirs.shape)
                == (ours.frames, ours.shape)
                == (2, tuple(4096 * upsampling for _ in "yx"))
            )
            assert all(np.array_equal(theirs.frame(index), ours.frame(index)) for index in range(2))


def test_relion_corrects_the_same_fractions_and_its_sums_have_our_scale(
    run_program: RunProgram, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    density = np.full(SENSOR, 0.1, np.float32)
    density[500:900, 600:1400] = 0.2
    frames = [electrons(rng, density)] * 3
    frames.append(electrons(rng, 0.001))
    (tmp_path / "m.eer").write_bytes(eer_bytes(frames, SENSOR))
    reference = np.full(SENSOR, 10, np.float32)  # multiplies, in a unit of its own
    reference[:2048] = 5
    write_mrc(tmp_path / "reference.mrc", reference)
    prepared = prepare_gain(
        tmp_path / "reference.mrc", SENSOR, output=tmp_path / "ours.mrc", reciprocal=tmp_path / "gain.mrc"
    )
    assert prepared.warnings == ()
    optics = {"rlnOpticsGroupName": "a", "rlnOpticsGroup": 1, "rlnMicrographOriginalPixelSize": 0.7}
    optics |= {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    movies = StarBlock("movies", ["rlnMicrographMovieName", "rlnOpticsGroup"], [["m.eer", 1]])
    write_star(tmp_path / "movies.star", [StarBlock("optics", list(optics), [list(optics.values())]), movies])
    run_program(
        "relion_run_motioncorr", "--use_own", "--i", "movies.star", "--o", "mc/", "--first_frame_sum", "1", "--last_frame_sum", "-1",
        "--bin_factor", "1", "--bfactor", "150", "--patch_x", "1", "--patch_y", "1", "--eer_grouping", "1", "--eer_upsampling", "1",
        "--dose_per_frame", "0.5", "--gainref", "gain.mrc", cwd=tmp_path,
    )  # fmt: skip
    general = read_star(tmp_path / "mc" / "m.star")["general"]
    said = {
        name: float(general.single(name))
        for name in ("rlnImageSizeZ", "rlnEERUpsampling", "rlnEERGrouping", "rlnMicrographDoseRate")
    }
    assert said == {"rlnImageSizeZ": 4, "rlnEERUpsampling": 1, "rlnEERGrouping": 1, "rlnMicrographDoseRate": 0.5}
    with open_movie(tmp_path / "m.eer", Rendering(1, 1)) as movie:
        total = movie.read().sum(axis=0, dtype=np.float32)
    theirs, ours = (
        image.reshape(64, 64, 64, 64).mean(axis=(1, 3)).reshape(-1)
        for image in (read_mrc(tmp_path / "mc" / "m.mrc"), total * read_mrc(prepared.path))
    )
    assert np.corrcoef(theirs, ours)[0, 1] > 0.999, (
        "rows of an EER movie, and of its gain reference, lie as in our arrays"
    )
    assert theirs.mean() == pytest.approx(ours.mean(), rel=1e-3), "in the same unit"
    assert np.polyfit(ours, theirs, 1)[0] == pytest.approx(1, abs=0.01)
    assert check_eer_complete(tmp_path / "m.eer").frames == 4
