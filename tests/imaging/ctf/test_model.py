"""The CTF as a function."""

import math

import numpy as np
import pytest
import torch

from beamside.imaging.ctf.model import ctf_1d, ctf_2d, electron_wavelength

KRIOS = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}


@pytest.mark.parametrize(("voltage", "wavelength"), [(60, 0.04866), (100, 0.03701), (200, 0.02508), (300, 0.01969)])
def test_wavelength_is_that_of_the_tables(voltage, wavelength):
    assert electron_wavelength(voltage) == pytest.approx(wavelength, abs=1e-5)


def test_value_follows_the_formula_of_the_papers():
    """A point worked out by hand in float64: minus CTFFIND's -sin."""
    wavelength, k, defocus = electron_wavelength(300), 0.17, 12345.0
    phase = math.pi * wavelength * k**2 * (defocus - wavelength**2 * k**2 * 2.7e7 / 2)
    expected = math.sin(phase + math.asin(0.1) + math.radians(35))
    assert float(ctf_1d(torch.tensor([k]), defocus, phase_shift_deg=35.0, **KRIOS)) == pytest.approx(expected, abs=1e-3)


def test_it_is_positive_near_zero_frequency_and_starts_at_the_amplitude_contrast():
    ctf = ctf_2d((64, 64), 2.0, 15000.0, 14000.0, 20.0, **KRIOS)
    assert float(ctf[0, 0]) == pytest.approx(0.1, abs=1e-6)
    assert (ctf[0, :3] > 0).all()


def test_first_zero_is_where_it_should_be():
    """Without Cs and amplitude contrast the first zero is at 1 / sqrt(λ Δf)."""
    zero = 1 / math.sqrt(electron_wavelength(200) * 10000)
    value = ctf_1d(
        torch.tensor([zero], dtype=torch.float64),
        10000.0,
        voltage=200.0,
        spherical_aberration=0.0,
        amplitude_contrast=0.0,
    )
    assert abs(float(value)) < 1e-6


def test_defocus_u_applies_along_its_angle_from_x_towards_growing_rows():
    size, pixel_size = 256, 1.5
    ctf = ctf_2d((size, size), pixel_size, 20000.0, 15000.0, 90.0, **KRIOS)
    frequency = torch.arange(1, size // 2) / (size * pixel_size)
    along_y, along_x = ctf[1 : size // 2, 0], ctf[0, 1 : size // 2]
    torch.testing.assert_close(along_y, ctf_1d(frequency, 20000.0, **KRIOS), atol=1e-3, rtol=0)
    torch.testing.assert_close(along_x, ctf_1d(frequency, 15000.0, **KRIOS), atol=1e-3, rtol=0)
    diagonal = ctf_2d((size, size), pixel_size, 20000.0, 15000.0, 45.0, **KRIOS)
    steps = torch.arange(1, size // 2)
    frequency = steps * math.sqrt(2) / (size * pixel_size)
    torch.testing.assert_close(diagonal[steps, steps], ctf_1d(frequency, 20000.0, **KRIOS), atol=2e-3, rtol=0)


def test_batches_equal_single_calls():
    defocus = torch.tensor([[8000.0, 12000.0, 30000.0]])
    batch = ctf_2d((32, 48), 1.2, defocus, defocus - 300, torch.tensor([10.0, 20.0, -70.0]), b_factor=50.0, **KRIOS)
    assert batch.shape == (1, 3, 32, 25)
    for i, angle in enumerate((10.0, 20.0, -70.0)):
        value = float(defocus[0, i])
        single = ctf_2d((32, 48), 1.2, value, value - 300, angle, b_factor=50.0, **KRIOS)
        torch.testing.assert_close(batch[0, i], single, atol=1e-4, rtol=0)


def test_b_factor_damps_by_a_quarter_of_it():
    k = torch.tensor([0.2])
    ratio = ctf_1d(k, 15000.0, b_factor=100.0, **KRIOS) / ctf_1d(k, 15000.0, **KRIOS)
    assert float(ratio) == pytest.approx(math.exp(-100 / 4 * 0.04), rel=1e-5)


def test_it_agrees_with_the_simulated_microscope_except_for_the_sign():
    from beamside.simulate.optics import Beam, Defocus, transfer

    theirs = transfer((128, 96), 1.3, Defocus(17000, 16500, 33), Beam(300, 2.7, 0.1))
    ours = ctf_2d((128, 96), 1.3, 17000.0, 16500.0, 33.0, **KRIOS).numpy()
    edge = ours[:, :-1]  # the two halves of the Nyquist column differ where there is astigmatism
    np.testing.assert_allclose(edge[:64], -theirs[:64, :-1], atol=5e-3)
