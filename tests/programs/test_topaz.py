"""What is understood of Topaz, and what is said when it cannot be used; the program itself is run in the peers' tests."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import ProgramError
from beamside.programs.topaz import HEADER, check_version, parse_picks

RECORDED = f"{HEADER}\nmicrograph\t312\t128\t4.8492\nmicrograph\t640\t768\t-3.9\n"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_places_are_rows_and_columns() -> None:
    places, scores = parse_picks(RECORDED, "mic.mrc")
    assert places.tolist() == [[128.0, 312.0], [768.0, 640.0]]
    assert scores.tolist() == [4.8492, -3.9]
    assert len(parse_picks(f"{HEADER}\n", "mic.mrc")[0]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x y score\n",
        RECORDED.replace("128", "here"),
        RECORDED + "micrograph\t1\t2\n",
        RECORDED.replace("-3.9", "nan"),
    ],
)
def test_another_table_is_an_error_and_not_a_guess(text: str) -> None:
    with pytest.raises(ProgramError, match=r"mic\.mrc"):
        parse_picks(text, "mic.mrc")


@given(st.text(max_size=200))
def test_any_text_gives_picks_or_a_clear_error(text: str) -> None:
    try:
        places, scores = parse_picks(f"{HEADER}\n{text}", "mic.mrc")
    except ProgramError:
        return
    assert len(places) == len(scores)


def test_a_missing_program_says_how_to_get_it() -> None:
    with pytest.raises(ProgramError, match="pip install topaz-em"):
        check_version("no-such-topaz")


def test_versions_that_are_not_known_are_refused(tmp_path: Path) -> None:
    assert check_version(script(tmp_path / "good", "echo 'TOPAZ 0.2.5'")) == "0.2.5"
    with pytest.raises(ProgramError, match=r"0\.1\.0 is not supported"):
        check_version(script(tmp_path / "old", "echo 'TOPAZ 0.1.0'"))
    with pytest.raises(ProgramError, match="no version"):
        check_version(script(tmp_path / "other", "echo hello"))
    with pytest.raises(ProgramError, match="no module"):
        check_version(script(tmp_path / "broken", "echo 'no module named torch' >&2; exit 1"))
