import re

import pytest

from beamside.cli.options import PATH_NAMES, all_flags, click_options, declared_parameters, value_text, vocabulary
from beamside.cli.session import start
from beamside.flow.settings import all_parameters


def test_every_declared_parameter_has_its_option() -> None:
    flags = set(all_flags(start))
    for _, info in all_parameters():
        assert info.flag in flags


def test_no_name_or_flag_is_declared_twice() -> None:
    names = [info.name for _, info in all_parameters()]
    flags = [info.flag for _, info in all_parameters()]
    assert sorted(names) == sorted(set(names))
    assert sorted(flags) == sorted(set(flags))


def test_options_have_no_defaults_of_their_own() -> None:
    """Otherwise a profile could never be heard: everything would seem to come from the command line."""
    assert {option.name for option in click_options() if option.default not in (None, ())} == set()


def test_names_that_are_paths_exist() -> None:
    assert set(declared_parameters()) >= PATH_NAMES


def test_a_facility_file_may_use_the_names_of_the_flags() -> None:
    names = vocabulary().names
    assert names["pixel_size"] == "pixel_size"
    assert names["cs"] == "cs"


class TestHelp:
    def test_options_are_grouped_with_units_ranges_and_defaults(self, beamside) -> None:
        code, out, _ = beamside("session", "start", "--help")
        text = " ".join(out.split())
        assert code == 0
        for heading in (
            "Data:",
            "Microscope:",
            "Motion correction:",
            "CTF estimation:",
            "Picking:",
            "2D classification:",
        ):
            assert re.search(rf"^{heading}$", out, re.MULTILINE)
        assert (
            "--pixel-size NUMBER Pixel size of the movies (of EER movies: of the pixels in which they are rendered). [Å;"
            in text
        )
        assert "--patches-x INTEGER" in text
        assert "[1 to 20; default: 5]" in text
        assert "--particle-diameter MIN:MAX" in text
        assert "--workflow NAME|FILE" in text
        assert "even; default: 64" in text

    def test_special_cases_are_shown_only_when_asked_for(self, beamside) -> None:
        _, basic, _ = beamside("session", "start", "--help")
        _, everything, _ = beamside("session", "start", "--help-all")
        assert "--class-tau" not in basic
        assert "--class-tau" in everything
        assert "--help-all." in basic
        for _, info in all_parameters():
            assert info.flag in everything
            assert (info.flag + " " in basic or info.flag + "\n" in basic) == (not info.advanced), info.flag


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (1.0, "1"),
        (1.08, "1.08"),
        (10_000_000.0, "10000000"),
        ((100.0, 160.0), "100:160"),
        ((".xml", ".mdoc"), ".xml, .mdoc"),
        ("", ""),
    ],
)
def test_values_are_shown_as_people_type_them(value: object, text: str) -> None:
    assert value_text(value) == text
