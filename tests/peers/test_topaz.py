"""Topaz itself, with one of the models that come with it, on a simulated micrograph."""

import os
import shutil
from pathlib import Path

import pytest

from beamside.formats.mrc import write_mrc
from beamside.imaging.picking.blobs import BlobSettings
from beamside.imaging.picking.candidates import accept
from beamside.programs.topaz import FLOOR, check_version, pick_with_topaz
from beamside.simulate.movie import MovieSettings, simulate_micrograph
from beamside.simulate.score import match_picks
from beamside.simulate.specimen import make_specimen

BESIDE = Path(__file__).parents[2] / ".venv-topaz/bin/topaz"
pytestmark = pytest.mark.peer


@pytest.fixture
def topaz() -> str:
    """Path of Topaz: where ``tools/install-topaz`` puts it, or on PATH."""
    path = str(BESIDE) if BESIDE.exists() else shutil.which("topaz")
    if path is None and os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail("Topaz is not installed; CI must have every peer")
    if path is None:
        pytest.skip("Topaz is not installed")
    return path


def test_topaz_finds_simulated_particles(topaz: str, tmp_path: Path) -> None:
    specimen = make_specimen()
    image, truth = simulate_micrograph(MovieSettings(size=(720, 720), contamination=0.0), specimen, 5)
    write_mrc(tmp_path / "mic.mrc", image, 1.3)
    settings = BlobSettings(1.3, 140.0, 200.0, mask=False)
    found = pick_with_topaz(tmp_path / "mic.mrc", image, settings, program=topaz, model="resnet8_u32", threads=1)
    picks = accept(found, -1.0)
    score = match_picks(truth.particles[:, :2], picks.coordinates.numpy(), 0.4 * specimen.diameter / 1.3)
    assert check_version(topaz)
    assert float(found.scores.min()) >= FLOOR
    assert (found.scores.diff() <= 0).all()
    assert score.recall >= 0.6
    assert score.precision >= 0.6
