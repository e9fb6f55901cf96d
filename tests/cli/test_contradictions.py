"""Settings that cannot both be meant are refused before a session starts, in one sentence that names both."""

from typing import Any

import pytest

from beamside.cli.resolution import resolve_session
from beamside.errors import ConfigError

GIVEN: dict[str, Any] = {
    "target": "out",
    "name": "run1",
    "data": ("/camera/*.tiff",),
    "pixel_size": "1.08",
    "voltage": "300",
}

PAIRS = [
    ({"min_defocus": "60000"}, "--min-defocus 60000 Å", "--max-defocus 50000 Å (default)"),
    ({"min_defocus": "9000", "max_defocus": "9050"}, "--min-defocus 9000 Å", "--max-defocus 9050 Å"),
    ({"min_phase_shift": "90", "max_phase_shift": "10"}, "--min-phase-shift 90", "--max-phase-shift 10"),
    ({"ctf_max_resolution": "18"}, "--ctf-min-resolution 30 Å (default)", "--ctf-max-resolution 18 Å"),
    ({"pixel_size": "10"}, "--ctf-min-resolution 30 Å (default)", "--pixel-size 10 Å"),
    ({"binning": "8"}, "--ctf-min-resolution 30 Å (default)", "--binning 8"),
    ({"reject_resolution": "2"}, "--reject-resolution 2 Å", "--pixel-size 1.08 Å"),
    ({"particle_diameter": "50:80", "pick_resolution": "90"}, "--pick-resolution 90 Å", "--particle-diameter 50:80 Å"),
    ({"box_size": "64"}, "--box-size 64 px", "--particle-diameter 120:180 Å (default)"),
    ({"box_size": "256", "background_diameter": "400"}, "--background-diameter 400 Å", "--box-size 256 px"),
    ({"class_mask": "50"}, "--class-mask 50 Å", "--particle-diameter 120:180 Å (default)"),
    ({"classes": "60", "class_min": "40"}, "--classes 60", "--class-min 40"),
    ({"select_classes": "1,40-60"}, "--select-classes 1,40-60", "--classes 50 (default)"),
    ({"dose": "50", "total_dose": "40"}, "--dose 50 e/Å²", "--total-dose 40 e/Å²"),
    ({"eer_dose": "2", "total_dose": "1"}, "--eer-dose 2 e/Å²", "--total-dose 1 e/Å²"),
    ({"gain_rotate": "90"}, "--gain-rotate 90", "--gain:"),
    ({"gain_wait": True}, "--gain-wait yes", "--gain:"),
    ({"pick_references": "classes.mrcs"}, "--pick-references classes.mrcs", "--pick-method blob (default)"),
    ({"pick_threshold": "1", "picks_per_area": "3"}, "--pick-threshold 1", "--picks-per-area 3"),
    ({"select_top": "3", "select_classes": "1"}, "--select-top 3", "--select-classes 1"),
]


@pytest.mark.parametrize(("given", "first", "second"), PAIRS, ids=[first.split()[0] for _, first, _ in PAIRS])
def test_both_are_named(given: dict[str, str], first: str, second: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve_session({**GIVEN, **given})
    sentence = str(error.value)
    assert first in sentence
    assert second in sentence
    assert ";" not in sentence


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"box_size": "200", "particle_diameter": "150"},
        {"binning": "2", "pixel_size": "0.5", "reject_resolution": "2"},
        {"mode": "micrographs", "binning": "8"},
        {"total_dose": "0.5"},
        {"gain": "gain.mrc", "gain_rotate": "90"},
        {"ctf_max_resolution": "15"},
        {"classes": "40", "class_min": "40", "select_classes": "40"},
    ],
)
def test_what_goes_together_is_taken(given: dict[str, str]) -> None:
    resolve_session({**GIVEN, **given})


def test_what_a_profile_has_for_other_sessions_is_no_contradiction(home: Any) -> None:
    profile = 'gain_rotate = 90\npick_references = "classes.mrcs"\n'
    (home / "beamside.toml").write_text(f"[stream.krios]\n{profile}min_defocus = 60000\n")
    resolve_session({**GIVEN, "max_defocus": "70000"}, profile="krios")
    with pytest.raises(ConfigError, match=r"60000 Å \(beamside.toml \[stream.krios\]\) is above --max-defocus"):
        resolve_session(GIVEN, profile="krios")


def test_a_group_whose_micrographs_are_too_coarse_for_the_common_pixels_is_told() -> None:
    given = {**GIVEN, "optics_group": ("fine: width = 9; pixel_size = 0.5", "coarse: width = 5; pixel_size = 6")}
    with pytest.raises(ConfigError, match=r"get pixels of 4.22 Å, and those of the micrographs of coarse are 6 Å"):
        resolve_session(given)
    resolve_session({**given, "box_size": "400"})
