import numpy as np
import pytest

from beamside.simulate.optics import Beam, Defocus, Tilt, critical_dose, damage, transfer


def test_wavelength_and_interaction_at_300_kv() -> None:
    assert Beam(300).wavelength == pytest.approx(0.019687, rel=1e-4)
    assert Beam(200).wavelength == pytest.approx(0.025079, rel=1e-4)
    assert Beam(300).interaction == pytest.approx(6.526e-4, rel=1e-3)


def test_the_first_zero_is_where_the_formula_has_it() -> None:
    beam = Beam(300, 0.0, 0.0)
    values = transfer((512, 512), 1.0, Defocus(10000, 10000), beam)[0]
    zero = np.argmax(values[1:] > 0) + 1
    expected = 1 / np.sqrt(beam.wavelength * 10000)  # without aberration, defocus × wavelength × k² = 1
    assert zero / 512 == pytest.approx(expected, abs=1 / 512)


def test_protein_is_dark_at_low_frequencies() -> None:
    values = transfer((256, 256), 1.5, Defocus(15000, 15000), Beam(300, 2.7, 0.1))
    assert values[0, 0] == pytest.approx(-0.1)
    assert values[0, 4] < -0.1


def test_u_is_the_defocus_along_the_angle() -> None:
    values = transfer((512, 512), 1.0, Defocus(20000, 10000, 90.0), Beam())
    along_y = transfer((512, 512), 1.0, Defocus(20000, 20000), Beam())[:256, 0]
    along_x = transfer((512, 512), 1.0, Defocus(10000, 10000), Beam())[0]
    assert np.allclose(values[:256, 0], along_y, atol=2e-3)
    assert np.allclose(values[0], along_x, atol=2e-3)
    # at 45° in array order (rows growing downwards) it is the first and third quadrant that has u
    turned = transfer((512, 512), 1.0, Defocus(20000, 10000, 45.0), Beam())
    only_u = transfer((512, 512), 1.0, Defocus(20000, 20000), Beam())
    diagonal = np.arange(1, 120)
    assert np.allclose(turned[diagonal, diagonal], only_u[diagonal, diagonal], atol=2e-3)
    assert not np.allclose(turned[-diagonal, diagonal], only_u[-diagonal, diagonal], atol=0.1)


def test_the_envelope_damps_by_the_b_factor() -> None:
    bare = transfer((64, 64), 2.0, Defocus(15000, 15000), Beam())
    damped = transfer((64, 64), 2.0, Defocus(15000, 15000), Beam(), 100.0)
    frequency = 10 / 128
    assert damped[0, 10] == pytest.approx(bare[0, 10] * np.exp(-25 * frequency**2), rel=1e-4)


def test_damage_follows_grant_and_grigorieff() -> None:
    # the fit as it is printed, in double precision
    for resolution in (3.0, 5.0, 10.0, 40.0):
        assert critical_dose(1 / resolution) == pytest.approx(0.24499 * resolution**1.6649 + 2.8141, rel=1e-5)
    assert critical_dose(0.2, 200.0) == pytest.approx(0.8 * critical_dose(0.2), rel=1e-6)
    factors = damage((64, 64), 2.0, 20.0)
    assert factors[0, 0] == pytest.approx(1.0, abs=1e-3)
    assert factors[0, 16] == pytest.approx(np.exp(-10 / critical_dose(0.125)), rel=1e-5)


def test_a_phase_plate_advances_the_phase() -> None:
    # asin(0.1) + 30° of phase shift is the same as the amplitude contrast that has this phase
    both = float(np.sin(np.arcsin(0.1) + np.deg2rad(30)))
    shifted = transfer((128, 128), 1.5, Defocus(12000, 11000, 20), Beam(300, 2.7, 0.1, 30.0))
    assert np.allclose(shifted, transfer((128, 128), 1.5, Defocus(12000, 11000, 20), Beam(300, 2.7, both)), atol=1e-5)


def test_the_defocus_of_a_tilted_specimen_grows_across_its_axis() -> None:
    y, x = np.float32(100.0), np.float32(50.0)
    assert Tilt(45.0, 0.0).offset(y, x) == pytest.approx(100.0)  # axis along x: rows further down have more defocus
    assert Tilt(45.0, 90.0).offset(y, x) == pytest.approx(-50.0)
    assert Tilt(-45.0, 90.0).offset(y, x) == pytest.approx(50.0)
    assert Tilt(60.0, np.rad2deg(np.arctan2(100.0, 50.0))).offset(y, x) == pytest.approx(0.0, abs=1e-4)
