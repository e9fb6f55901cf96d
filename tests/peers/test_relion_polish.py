"""RELION's Polish takes up our motion: movies, our MotionCorr job, particles and a reference go in, tracks and shiny particles come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.fft

from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.jobs.base import Item, Optics, Result, Row, Workspace
from beamside.jobs.motion import MotionCorrection, MotionParameters
from beamside.jobs.motion_worker import correct
from beamside.jobs.ports import Given
from beamside.simulate.movie import Movie, MovieSettings, simulate_movie
from beamside.simulate.optics import transfer
from beamside.simulate.specimen import ATOM_B_FACTOR, Specimen, make_specimen, project, rotation_from_euler

pytestmark = pytest.mark.peer

Array = npt.NDArray[np.float64]
SETTINGS = MovieSettings(
    size=(640, 704),
    frames=12,
    pixel_size=1.7,
    dose_per_frame=2.5,
    particle_spacing=180.0,
    contamination=0.0,
    drift=12.0,
)
OPTICS = Optics(1.7, 300.0, 2.7, 0.1, 2.5)
BOX = 96
MICROGRAPHS = "MotionCorr/job002/corrected_micrographs.star"


def volume(specimen: Specimen) -> npt.NDArray[np.float32]:
    """Return the specimen as a map of BOX³ voxels, its centre at voxel BOX // 2."""
    edges = (np.arange(BOX + 1) - BOX // 2 - 0.5) * SETTINGS.pixel_size
    points = specimen.positions[:, ::-1]
    density, _ = np.histogramdd(points, bins=(edges, edges, edges), weights=specimen.weights)
    fy, fx = np.fft.fftfreq(BOX, SETTINGS.pixel_size), np.fft.rfftfreq(BOX, SETTINGS.pixel_size)
    square = fy[:, None, None] ** 2 + fy[None, :, None] ** 2 + fx**2
    blurred = scipy.fft.irfftn(scipy.fft.rfftn(density) * np.exp(-ATOM_B_FACTOR / 4 * square), s=density.shape)
    return np.asarray(blurred, dtype=np.float32)


def particles(movie: Movie, micrograph: str) -> list[StarBlock]:
    """Return RELION's particles of the movie, where the truth says that they are."""
    defocus = movie.truth.defocus
    optics = StarBlock.from_mapping(
        "optics",
        {
            "rlnOpticsGroupName": "opticsGroup1",
            "rlnOpticsGroup": 1,
            "rlnMicrographOriginalPixelSize": OPTICS.pixel_size,
            "rlnVoltage": OPTICS.voltage,
            "rlnSphericalAberration": OPTICS.spherical_aberration,
            "rlnAmplitudeContrast": OPTICS.amplitude_contrast,
            "rlnImagePixelSize": OPTICS.pixel_size,
            "rlnImageSize": BOX,
            "rlnImageDimensionality": 2,
        },
    )
    optics.loop = True
    records = [
        {
            "rlnCoordinateX": float(x),
            "rlnCoordinateY": float(y),
            "rlnImageName": f"{index + 1:06d}@Extract/job005/movie.mrcs",
            "rlnMicrographName": micrograph,
            "rlnOpticsGroup": 1,
            "rlnDefocusU": defocus.u,
            "rlnDefocusV": defocus.v,
            "rlnDefocusAngle": defocus.angle,
            "rlnAngleRot": float(rot),
            "rlnAngleTilt": float(tilt),
            "rlnAnglePsi": float(psi),
            "rlnOriginXAngst": 0.0,
            "rlnOriginYAngst": 0.0,
            "rlnRandomSubset": index % 2 + 1,
        }
        for index, (y, x, rot, tilt, psi) in enumerate(movie.truth.particles)
    ]
    return [optics, StarBlock.from_records("particles", records)]


def post_process() -> list[StarBlock]:
    """Return what Polish reads of a PostProcess job: a resolution of about 5 Å."""
    shells = np.arange(BOX // 2 + 1)
    correlation = 1 / (1 + np.exp((shells - BOX * SETTINGS.pixel_size / 5) / 1.5))
    general = StarBlock.from_mapping("general", {"rlnFinalResolution": 5.0})
    rows = [
        {
            "rlnSpectralIndex": int(shell),
            "rlnFourierShellCorrelationCorrected": float(value),
        }
        for shell, value in zip(shells, correlation, strict=True)
    ]
    return [general, StarBlock.from_records("fsc", rows)]


@dataclass(frozen=True)
class Case:
    """A project with one movie, corrected by us."""

    root: Path
    movie: Movie


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("polish")
    specimen = make_specimen("asymmetric")
    movie = simulate_movie(SETTINGS, specimen, seed=2)
    (root / "raw").mkdir()
    write_mrc(root / "raw" / "movie.mrcs", movie.counts.astype(np.int16), OPTICS.pixel_size)
    write_mrc(root / "raw" / "gain.mrc", movie.gain.gain, OPTICS.pixel_size)
    source = Result(outputs={"movie": "raw/movie.mrcs"}, values={"gain": "raw/gain.mrc"})
    item, parameters = Item("raw/movie", {"movies": Given(source)}), MotionParameters()
    workspace = Workspace(root, "MotionCorr/job002", OPTICS)
    result = correct(item, parameters, workspace)
    stars = MotionCorrection().star_files([Row(item, result)], parameters, OPTICS, workspace.job, root)
    for name, blocks in stars.items():
        assert not isinstance(blocks, str)
        write_star(root / workspace.job / name, blocks)
    write_star(root / "particles.star", particles(movie, result.outputs["micrograph"]))
    write_star(root / "postprocess.star", post_process())
    reference = volume(specimen)
    for name in ("half1.mrc", "half2.mrc"):
        write_mrc(root / name, reference, OPTICS.pixel_size, volume=True)
    return Case(root, movie)


def polish(
    run_program: Callable[..., str], case: Case, output: str, *options: str, micrographs: str = MICROGRAPHS
) -> Path:
    """Run Polish; returns its folder."""
    files = ["--i", "particles.star", "--f", "postprocess.star", "--m1", "half1.mrc", "--m2", "half2.mrc"]
    files += ["--corr_mic", micrographs, "--o", f"{output}/", "--angpix_ref", str(OPTICS.pixel_size)]
    run_program("relion_motion_refine", *files, "--fdose", str(OPTICS.dose_per_frame), *options, cwd=case.root)
    return case.root / output


def tracks(folder: Path, count: int) -> Array:
    """Return Polish's tracks ``(particles, frames, 2)``, y and x in Å."""
    path = next(folder.rglob("*_tracks.star"))
    blocks = read_star(path)
    columns = ("rlnOriginYAngst", "rlnOriginXAngst")
    return np.stack(
        [np.stack([blocks[str(index)].floats(column) for column in columns], axis=1) for index in range(count)]
    )


def shiny(folder: Path) -> npt.NDArray[np.float32]:
    """Return the particles that Polish made, in the order of the input."""
    names = read_star(folder / "shiny.star")["particles"].texts("rlnImageName")
    stack = np.asarray(read_mrc(folder.parent.parent / names[0].split("@")[1]), dtype=np.float32)
    return stack[[int(name.split("@")[0]) - 1 for name in names]]


def likeness(case: Case, images: npt.NDArray[np.float32]) -> float:
    """Return the mean correlation at 5-15 Å of white particles with what they would show without noise."""
    truth = case.movie.truth
    views = project(make_specimen("asymmetric"), rotation_from_euler(*truth.particles[:, 2:].T), OPTICS.pixel_size, BOX)
    optics = -transfer((BOX, BOX), OPTICS.pixel_size, truth.defocus, SETTINGS.beam, 0.0)
    fy = np.fft.fftfreq(BOX, OPTICS.pixel_size)[:, None]
    frequency = np.hypot(fy, np.fft.rfftfreq(BOX, OPTICS.pixel_size))
    band = (frequency > 1 / 15) & (frequency < 1 / 5)
    pairs = [
        (np.fft.rfft2(image)[band], (np.fft.rfft2(view) * optics)[band])
        for image, view in zip(images, views, strict=True)
    ]
    return float(np.mean([np.vdot(a, b).real / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))


def spread(tracks: Array) -> float:
    """Return the root mean square length of the tracks ``(particles, frames, 2)`` about their means."""
    return float(np.sqrt(((tracks - tracks.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean()))


def without_motion(case: Case) -> str:
    """Write the STAR files as they would be if nothing had moved; returns the list of micrographs."""
    motion = read_star(case.root / "MotionCorr/job002/raw/movie.star")
    track = motion["global_shift"]
    still = [[row[0], 0.0, 0.0] for row in track.rows]
    general = motion["general"].records()[0] | {"rlnMotionModelVersion": 0}
    write_star(
        case.root / "still_movie.star",
        [StarBlock.from_mapping("general", general), StarBlock("global_shift", track.columns, still)],
    )
    blocks = read_star(case.root / MICROGRAPHS)
    rows = [row | {"rlnMicrographMetadata": "still_movie.star"} for row in blocks["micrographs"].records()]
    write_star(case.root / "still.star", [blocks["optics"], StarBlock.from_records("micrographs", rows)])
    return "still.star"


def test_our_motion_is_taken_as_it_is_and_makes_sharp_particles(case: Case, run_program: Callable[..., str]) -> None:
    """Without iterations the tracks are those of our file, and frames summed along them show more than frames that were left where they are."""
    options = ("--max_iters", "0", "--combine_frames")
    folder = polish(run_program, case, "Polish/job010", *options)
    places = case.movie.truth.particles[:, :2]
    found = tracks(folder, len(places))
    truth = case.movie.truth.displacement(places).transpose(1, 0, 2) * OPTICS.pixel_size
    assert spread(truth) > 4
    assert spread(found - truth) < 0.5
    images = shiny(folder)
    assert len(images) == len(places)
    assert bool(np.isfinite(images).all())
    left = polish(run_program, case, "Polish/job011", *options, micrographs=without_motion(case))
    assert spread(tracks(left, len(places))) < 1e-3
    assert likeness(case, images) > 1.2 * likeness(case, shiny(left))


def test_polish_goes_on_from_our_motion(case: Case, run_program: Callable[..., str]) -> None:
    """A few particles cannot say much, so the prior is a strong one; what Polish finds is still the true motion."""
    prior = ("--s_vel", "0.05", "--s_div", "50000", "--s_acc", "0.5")
    folder = polish(run_program, case, "Polish/job012", *prior, "--combine_frames")
    places = case.movie.truth.particles[:, :2]
    truth = case.movie.truth.displacement(places).transpose(1, 0, 2) * OPTICS.pixel_size
    assert spread(tracks(folder, len(places)) - truth) < 0.25 * spread(truth)
    assert len(read_star(folder / "shiny.star")["particles"]) == len(places)
