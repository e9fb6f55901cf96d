"""CTF estimation on simulated micrographs and real power spectra."""

import csv
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from beamside.errors import ProcessingError
from beamside.imaging.ctf.curves import ice_ring
from beamside.imaging.ctf.estimation import CtfSettings, estimate_ctf, micrograph_spectrum
from beamside.imaging.ctf.search import Table, search_table
from beamside.imaging.ctf.tilt import estimate_tilt
from beamside.imaging.spectrum import tile_powers
from beamside.simulate.optics import Beam, Defocus, transfer

SETTINGS = CtfSettings(300.0, 2.7, 0.1)
PIXEL = 1.4
DATA = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "em"


def micrograph(defocus, *, snr=0.7, size=1024, seed=1, beam=None, phase_shift=0.0):
    """White structure seen through the CTF (B-factor 60 Å²) plus white noise; `snr` is their ratio of power at low frequency."""
    beam = beam or Beam(300.0, 2.7, math.sin(math.asin(0.1) + math.radians(phase_shift)))
    rng = np.random.default_rng(seed)
    structure = np.fft.rfft2(rng.standard_normal((size, size)))
    seen = np.fft.irfft2(structure * transfer((size, size), PIXEL, defocus, beam, 60.0), s=(size, size))
    return torch.from_numpy((math.sqrt(snr) * seen + rng.standard_normal((size, size))).astype(np.float32))


def fit(defocus, settings=SETTINGS, **options):
    return estimate_ctf(*micrograph_spectrum(micrograph(defocus, **options), PIXEL), settings)


@pytest.mark.parametrize("mean", [5000, 8000, 14000, 21000, 30000])
def test_defocus_and_astigmatism_are_found(mean):
    result = fit(Defocus(mean + 150, mean - 150, 25), seed=mean)
    assert not result.failed
    assert result.defocus == pytest.approx(mean, abs=50)
    assert result.astigmatism == pytest.approx(300, abs=100)
    assert (result.angle - 25 + 90) % 180 - 90 == pytest.approx(0, abs=12)
    assert result.resolution < 5


@pytest.mark.parametrize("angle", [-80, -30, 0, 45, 90])
def test_large_astigmatism_is_found_in_every_direction(angle):
    result = fit(Defocus(15800, 14200, angle), seed=angle + 100)
    assert result.astigmatism == pytest.approx(1600, abs=100)
    assert (result.angle - angle + 90) % 180 - 90 == pytest.approx(0, abs=3)
    assert result.defocus_u >= result.defocus_v


def test_search_reads_every_sector_at_the_defocus_of_its_direction():
    defoci = torch.arange(5000.0, 20001.0, 100.0)
    directions = (np.arange(36) + 0.5) / 36 * np.pi - np.pi / 2
    scores = torch.zeros(2, 36, len(defoci))
    for sector, direction in enumerate(directions):
        scores[1, sector, 70 + round(6 * math.cos(2 * (direction - math.radians(30))))] = 3.0
    found = search_table(Table(scores, defoci, (0.0, 90.0), 30.0), 2000.0)
    defocus_u, defocus_v, angle = found.axes()
    assert (found.defocus, found.phase_shift, found.envelope) == (12000.0, 90.0, 30.0)
    assert defocus_u - defocus_v == pytest.approx(1200, abs=100)
    assert angle == pytest.approx(30, abs=1)


def test_noise_is_reported_as_a_failure():
    for seed in range(4):
        result = fit(Defocus(15000, 15000), snr=0.0, seed=seed)
        assert "Thon" in result.failed or "rings" in result.failed


def test_weak_rings_are_believed_when_they_stand_out_of_the_noise():
    for seed in range(3):
        result = fit(Defocus(15100, 14900), snr=0.15, seed=seed)
        assert not result.failed
        assert result.defocus == pytest.approx(15000, abs=200)


def test_rings_that_are_hardly_seen_are_not_taken_for_astigmatic():
    found = [fit(Defocus(15000, 15000), snr=0.12, seed=seed).astigmatism for seed in range(5)]
    assert max(found) < 400
    assert np.mean(found) < 250


def test_close_rings_of_high_defocus_and_low_voltage_are_resolved():
    settings = CtfSettings(200.0, 2.7, 0.1, max_defocus=60000.0)
    result = fit(Defocus(44200, 43800, 30), settings, beam=Beam(200.0, 2.7, 0.1))
    assert not result.failed
    assert result.defocus == pytest.approx(44000, abs=40)
    assert result.astigmatism == pytest.approx(400, abs=100)


def test_a_defocus_outside_the_search_is_reported_as_a_failure():
    settings = replace(SETTINGS, max_defocus=15000.0)
    result = fit(Defocus(30000, 29900), settings)
    assert result.failed


def test_phase_shift_is_found_on_request():
    settings = replace(SETTINGS, phase_shift=True)
    result = fit(Defocus(12200, 12000, 10), settings, phase_shift=70.0)
    assert not result.failed
    assert result.phase_shift == pytest.approx(70, abs=6)
    assert result.defocus == pytest.approx(12100, abs=60)


def test_merit_and_resolution_fall_with_the_signal():
    good, poor = (fit(Defocus(15200, 15000), snr=snr) for snr in (1.0, 0.15))
    assert good.figure_of_merit > poor.figure_of_merit > 0
    assert good.resolution < poor.resolution


def test_curves_and_picture_are_made_for_people():
    result = fit(Defocus(15300, 15000, 40))
    curves = result.curves
    assert len(curves.frequency) == len(curves.experimental) == len(curves.fitted) == len(curves.quality)
    assert (curves.frequency.diff() > 0).all()
    assert 0 <= float(curves.fitted.min()) < 0.05
    middle = (curves.frequency > 0.05) & (curves.frequency < 0.15)
    pair = torch.stack([curves.experimental[middle], curves.fitted[middle]])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.8
    assert result.picture.dtype == torch.uint8
    assert result.picture.shape[0] == result.picture.shape[1]
    left, right = (half.to(torch.float32) for half in result.picture.chunk(2, dim=1))
    mirrored = right.flip(0, 1).roll(1, 0)[:, :-1]  # the spectrum of a real image is the same at -k
    cropped = torch.stack([left[:, 1:].flatten(), mirrored.flatten()])
    assert float(torch.corrcoef(cropped)[0, 1]) > 0.3


def test_the_same_input_gives_the_same_fit():
    first, second = (fit(Defocus(15300, 15000, 40)) for _ in range(2))
    assert (first.defocus_u, first.defocus_v, first.angle) == (second.defocus_u, second.defocus_v, second.angle)


def test_oblong_finely_sampled_and_small_micrographs_work():
    whole = micrograph(Defocus(15300, 15000, 40))
    for image in (whole[:700], whole[:, :760], whole[:400, :300]):
        spectrum, pixel_size = micrograph_spectrum(image, PIXEL)
        assert spectrum.shape[0] <= 512
        assert estimate_ctf(spectrum, pixel_size, SETTINGS).defocus == pytest.approx(15150, abs=100)


def test_hot_pixels_and_gold_do_not_disturb():
    image = micrograph(Defocus(15300, 15000, 40))
    image[::97, ::89] = 1000.0
    spectrum, pixel_size = micrograph_spectrum(image, PIXEL)
    assert estimate_ctf(spectrum, pixel_size, SETTINGS).defocus == pytest.approx(15150, abs=50)


def test_spectrum_of_fine_pixels_ends_near_2_8_angstroms():
    spectrum, pixel_size = micrograph_spectrum(torch.randn(1600, 1500), 0.7)
    assert spectrum.shape == (512, 512)
    assert 1.38 <= pixel_size <= 1.46


def test_spectrum_is_centred_and_symmetric():
    size, period = 512, 16
    wave = torch.cos(2 * math.pi * torch.arange(size) / period).repeat(size, 1) + 1e-3 * torch.randn(size, size)
    spectrum, _ = micrograph_spectrum(wave, 2.0, box=256)
    row, column = divmod(int(spectrum.argmax()), 256)
    assert row == 128
    assert abs(column - 128) == 256 // period
    torch.testing.assert_close(spectrum[1:, 1:], spectrum[1:, 1:].flip(0, 1), rtol=1e-4, atol=1e-5)


def test_groups_of_frames_add_their_power():
    groups = torch.randn(3, 512, 512)
    spectrum, _ = micrograph_spectrum(groups, 1.5)
    one, _ = micrograph_spectrum(groups[0], 1.5)
    ratio = (spectrum**2).mean() / (one**2).mean()
    assert float(ratio) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.ones(512, 512), "constant"),
        (torch.full((512, 512), math.nan), "not finite"),
        (torch.randn(40, 4000), "too small"),
    ],
)
def test_impossible_micrographs_are_refused(image, message):
    with pytest.raises(ProcessingError, match=message):
        micrograph_spectrum(image, 1.5)


@pytest.mark.parametrize(
    ("spectrum", "pixel_size", "message"),
    [
        (torch.zeros(256, 256), 1.5, "zero"),
        (torch.ones(256, 128), 1.5, "square"),
        (torch.ones(256, 256), 12.0, "finer pixels"),
    ],
)
def test_impossible_spectra_are_refused(spectrum, pixel_size, message):
    with pytest.raises(ProcessingError, match=message):
        estimate_ctf(spectrum, pixel_size, SETTINGS)


def test_ice_is_seen_and_absent_where_pixels_are_too_coarse():
    frequency = torch.linspace(0.03, 0.36, 250)
    background = -0.5 * frequency
    ring = 0.2 * torch.exp(-0.5 * ((frequency - 1 / 3.7) / 0.003) ** 2)
    assert ice_ring(background, frequency) == pytest.approx(0, abs=0.01)
    assert ice_ring(background + ring, frequency) == pytest.approx(0.2, abs=0.05)
    assert math.isnan(ice_ring(background[:150], frequency[:150]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_micrographs_of_the_simulated_microscope_are_fitted(seed):
    """Particles, ice, damage and counting noise: what a perfect motion correction would give of a small exposure."""
    from beamside.simulate.movie import MovieSettings, simulate_micrograph

    settings = MovieSettings(size=(1024, 1024), frames=24, defocus=(6000.0, 30000.0))
    image, truth = simulate_micrograph(settings, seed=seed)
    result = estimate_ctf(*micrograph_spectrum(torch.from_numpy(image), settings.pixel_size), SETTINGS)
    assert not result.failed
    assert result.defocus == pytest.approx((truth.defocus.u + truth.defocus.v) / 2, abs=50)
    assert result.astigmatism == pytest.approx(abs(truth.defocus.u - truth.defocus.v), abs=100)


@pytest.mark.data
def test_real_spectra_give_the_published_defocus():
    """EMPIAR-10204: the CTF of RELION's tutorial, confirmed by a second estimate."""
    folder = DATA / "relion_bgal"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; set BEAMSIDE_TEST_DATA")
    import mrcfile

    with (folder / "truth" / "ctf_truth_8_power_spectra.csv").open() as stream:
        for row in csv.DictReader(stream):
            spectrum = torch.from_numpy(mrcfile.read(folder / row["power_spectrum"]).astype(np.float32))
            settings = CtfSettings(float(row["kV"]), float(row["Cs_mm"]), float(row["amp_contrast"]))
            result = estimate_ctf(spectrum, float(row["pixel_A"]), settings)
            assert not result.failed
            assert result.defocus_u == pytest.approx(float(row["truth_defocusU_A"]), abs=50)
            assert result.defocus_v == pytest.approx(float(row["truth_defocusV_A"]), abs=50)
            assert result.defocus == pytest.approx(
                (float(row["truth_defocusU_A"]) + float(row["truth_defocusV_A"])) / 2, abs=30
            )
            assert (result.angle - float(row["truth_angle_deg"]) + 90) % 180 - 90 == pytest.approx(0, abs=8)


@pytest.mark.data
def test_real_spectra_fail_where_the_search_leaves_the_truth_out():
    """A published run fitted 3 to 5 µm to spectra of 0.8 to 1.3 µm; limited to that range there is nothing to be found."""
    folder = DATA / "relion_bgal"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; set BEAMSIDE_TEST_DATA")
    import mrcfile

    for path in sorted((folder / "MotionCorr" / "job002" / "Movies").glob("*_PS.mrc"))[:3]:
        spectrum = torch.from_numpy(mrcfile.read(path).astype(np.float32))
        settings = CtfSettings(200.0, 1.4, 0.1, min_defocus=25000.0, max_defocus=55000.0)
        assert estimate_ctf(spectrum, 1.3995525, settings).failed


@pytest.mark.data
def test_real_micrographs_agree_with_an_independent_fit():
    """EMPIAR-10146, unaligned sums, against a fit by other means; on these the defocus drifts by 150 Å with the resolution."""
    folder = DATA / "apoferritin"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; set BEAMSIDE_TEST_DATA")
    from PIL import Image

    with (folder / "ctf_fit_4_not_published.csv").open() as stream:
        for row in csv.DictReader(stream):
            image = np.asarray(Image.open(folder / "sum_unaligned" / row["micrograph"])).astype(np.float32)
            settings = CtfSettings(float(row["kV"]), float(row["Cs_mm"]), float(row["amp_contrast"]))
            result = estimate_ctf(*micrograph_spectrum(torch.from_numpy(image), float(row["pixel_A"])), settings)
            assert not result.failed
            expected = (float(row["fit_defocusU_A"]) + float(row["fit_defocusV_A"])) / 2
            assert result.defocus == pytest.approx(expected, abs=250)


@pytest.mark.data
def test_real_rings_are_not_fitted_with_a_defocus_that_is_wrong():
    """EMPIAR-10204: a search that leaves out the true 0.8 to 1.3 µm has ended at 3 to 5 µm in another program, without a word."""
    folder = DATA / "relion_bgal" / "MotionCorr" / "job002" / "Movies"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; set BEAMSIDE_TEST_DATA")
    import mrcfile

    settings = CtfSettings(200.0, 1.4, 0.1, min_defocus=25000.0, max_defocus=60000.0)
    paths = sorted(folder.glob("*_PS.mrc"))
    assert paths
    for path in paths:
        spectrum = torch.from_numpy(mrcfile.read(path).astype(np.float32))
        assert estimate_ctf(spectrum, 1.3995525, settings).failed


def test_carbon_in_focus_and_a_gradient_are_reported_as_a_failure():
    y, x = np.mgrid[:1024, :1024]
    falling = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None, :])
    for seed in range(3):
        noise = np.random.default_rng(seed).standard_normal((1024, 1024))
        texture = np.fft.irfft2(np.fft.rfft2(noise) / (1 + (falling / 0.05) ** 2), s=noise.shape)
        image = torch.from_numpy((noise + 3 * texture + 0.002 * y + 0.001 * x).astype(np.float32))
        assert estimate_ctf(*micrograph_spectrum(image, PIXEL), SETTINGS).failed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_spectra_and_tilt_are_the_same_on_a_gpu():
    image = micrograph(Defocus(15300, 15000, 40))
    (here, there) = (tile_powers(image.to(device), PIXEL) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.power.cpu(), here.power, rtol=1e-3, atol=1e-3 * float(here.power.mean()))
    (fit_here, _), (fit_there, tilt) = (estimate_tilt(tiles, SETTINGS) for tiles in (here, there))
    assert fit_there.defocus == pytest.approx(fit_here.defocus, abs=2)
    assert tilt.angle < 3 * tilt.error
