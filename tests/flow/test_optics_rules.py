"""Rules that say to which optics group a file belongs: what can be written, what is understood, and what is said of mistakes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.flow.optics_rules import NUMBERS, TEXTS, VALUES, Condition, OpticsRule, facts_of, parse_rule
from beamside.flow.settings import OpticsParameters

EPU = {
    "source": "/data/krios/Grid 3/FoilHole_12_Data_345_2_20240101_120000_Fractions.tiff",
    "shape": [4092, 5760],
    "frames": 40,
    "metadata": {"magnification": 105000.0, "voltage": 300.0, "beam_shift_x": -0.25},
}


def holds(rule: str, **changed: Any) -> str | None:
    return parse_rule(rule).group_of(facts_of({**EPU, **changed}))


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("file matches *_Data_345_*", True),
        ("file matches foilhole*", False),
        ("file matches FoilHole_1[12]_*", True),
        ("file matches FoilHole_1[!2]_*", False),
        ("file matches FoilHole_1?_*.tiff", True),
        ("file matches *Grid*", False),
        ('folder matches "Grid 3"', True),
        ("folder matches Grid", False),
        ("folder matches /data/*", True),
        ("path matches *krios*_Fractions.tiff", True),
        ("magnification > 100000", True),
        ("magnification = 105010", True),
        ("magnification == 106000", False),
        ("magnification != 106000", True),
        ("beam_shift_x <= -0.25", True),
        ("beam_shift_x < -0.25", False),
        ("tilt > 10", False),  # not known of this file
        ("tilt != 10", False),
        ("width = 5760 and height = 4092 and frames >= 40", True),
        ("width = 5760 and frames > 40", False),
    ],
)
def test_conditions_hold_of_what_is_known(condition: str, found: bool) -> None:
    assert holds(f"k3: {condition}") == ("k3" if found else None)


def test_a_text_in_the_name_makes_a_group_of_each() -> None:
    assert holds("shot{}: file matches FoilHole_*_Data_{}_*_Fractions.tiff") == "shot345"
    assert holds("shot{}: file matches FoilHole_*_Data_{}_* and magnification < 1000") is None
    assert holds("of_{}: folder matches {} and frames = 40", source="/a/Grid 3/m.tiff") == "of__a_Grid_3"


def test_a_file_of_which_little_is_known_matches_no_number() -> None:
    assert parse_rule("a: width > 0").group_of(facts_of({})) is None
    assert parse_rule("a: magnification > 0").group_of(facts_of({"metadata": {"magnification": "high"}})) is None


def test_a_table_of_a_facility_file_says_the_same() -> None:
    table = {"name": "tilted", "when": "file matches *_tilt30_*", "pixel-size": 0.85, "beam_tilt_x": 1}
    rule = parse_rule(table)
    assert str(rule) == "tilted: file matches *_tilt30_*; pixel_size = 0.85, beam_tilt_x = 1"
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("tilted", "has no name"),
        (": file matches a", "cannot be the name"),
        ("a b: file matches a", "cannot be the name"),
        ("{}{}: file matches {}", "cannot be the name"),
        ("a{}: file matches b", "a pattern must have it"),
        ("a:", "a condition is missing"),
        ("a: ; voltage = 200", "a condition is missing"),
        ("a: file", "is no condition"),
        ("a: file matches two words", "join conditions with 'and'"),
        ("a: file matches b and", "join conditions with 'and'"),
        ("a: file matches b and ", "a condition is missing"),
        ("a: file = b", "can only be compared with a pattern"),
        ("a: tilt matches 3*", "can only be compared with a number"),
        ("a: magnifiction > 3", "did you mean 'magnification'"),
        ("a: tilt > steep", "must be a number"),
        ("a: tilt > nan", "must be a number"),
        ("a: file matches {}{}", "at most once"),
        ("a: file matches b; pixelsize = 2", "did you mean 'pixel_size'"),
        ("a: file matches b; voltage", "must be a number"),
        ("a: file matches b; voltage = 200, voltage = 300", "given twice"),
        ({"when": "file matches b"}, "needs 'name'"),
        ({"name": "a", "when": "file matches b", "pixel_size": True}, "must be a number"),
        (3, "a line of text"),
    ],
)
def test_mistakes_are_named(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match="^.*" + said):
        parse_rule(wrong)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["a: file matches b", "a: file matches c"], "two groups have this name"),
        (["opticsGroup1: file matches b"], "name of what matches no rule"),
        (["a: file matches b; voltage = 5"], "a: voltage: input should be greater than or equal to 40"),
        (5, "must be a list"),
    ],
)
def test_settings_say_what_is_wrong_with_groups(groups: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OpticsParameters(pixel_size=1.0, voltage=300, optics_group=groups)


def test_a_group_has_the_values_of_the_session_where_it_gives_none() -> None:
    given = ["a: file matches a*; pixel_size = 0.5, dose = 2", {"name": "b", "when": "file matches *", "cs": 0.001}]
    optics = OpticsParameters(pixel_size=1.0, voltage=300, total_dose=40, beam_tilt_y=0.5, optics_group=given)
    assert optics.optics_group == ("a: file matches a*; pixel_size = 0.5, dose = 2", "b: file matches *; cs = 0.001")
    items = optics.item_optics()
    first, second = (items.of_facts(facts_of({"source": f"/x/{name}.tiff"})) for name in ("a1", "c1"))
    assert (first.group, first.pixel_size, first.common_pixel_size, first.voltage) == ("a", 0.5, 1.0, 300.0)
    assert (first.total_dose, first.dose_per_frame, first.beam_tilt_y) == (0.0, 2.0, 0.5)
    assert (second.group, second.common_pixel_size, second.spherical_aberration) == ("b", 0.0, 0.001)
    assert second.total_dose == 40.0
    assert OpticsParameters(pixel_size=1.0, voltage=300, optics_group=["none"]).optics_group == ()


NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True)
FINITE = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.10g}"))
CONDITIONS = st.one_of(
    st.builds(
        Condition,
        st.sampled_from(TEXTS),
        st.just("matches"),
        st.text(st.characters(blacklist_characters='"{}', blacklist_categories=("Cs",)), min_size=1, max_size=8),
    ),
    st.builds(
        Condition,
        st.sampled_from(NUMBERS),
        st.sampled_from(["<", "<=", ">", ">=", "=", "!="]),
        FINITE.map(lambda value: f"{value:.10g}"),
    ),
)
RULES = st.builds(
    OpticsRule,
    NAMES,
    st.lists(CONDITIONS, min_size=1, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(VALUES), FINITE, max_size=3).map(lambda found: tuple(found.items())),
)


@settings(max_examples=200, deadline=None)
@given(RULES)
def test_what_is_written_is_read_again(rule: OpticsRule) -> None:
    assert parse_rule(str(rule)) == rule


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_rule_or_is_refused(text: str, path: str) -> None:
    for line in (text, f"a: {text}", f"a: file matches {text}; {text}"):
        try:
            rule = parse_rule(line)
        except ValueError:
            continue
        assert parse_rule(str(rule)) == rule
        found = rule.group_of(facts_of({"source": path}))
        assert found is None or re.fullmatch(r"[A-Za-z0-9_.-]+", found)
