"""STAR files: what RELION writes is read exactly, what is written is what RELION would have written."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import CorruptFileError, InputError
from beamside.formats.star import StarBlock, Value, format_star, parse_star, read_star, write_star

DATA = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
STAR_FILES = sorted(DATA.glob("em/**/*.star"))
GOLDEN = DATA.parent / "golden" / "relion313"
BROKEN = {"no_input.star": "line 28: a row of data_pipeline_nodes has 2 values for 3 columns"}

needs_data = pytest.mark.skipif(not STAR_FILES, reason=f"no STAR files below {DATA} (set BEAMSIDE_TEST_DATA)")
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not there")

labels = st.text("abcXYZ019", min_size=1, max_size=8)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), max_size=12).filter(
    lambda text: not ('"' in text and "'" in text)
)


@st.composite
def blocks(draw: st.DrawFn) -> StarBlock:
    columns = draw(st.lists(labels, min_size=1, max_size=4, unique=True))
    loop = draw(st.booleans())
    rows = draw(
        st.lists(
            st.lists(words, min_size=len(columns), max_size=len(columns)), min_size=not loop, max_size=5 if loop else 1
        )
    )
    return StarBlock(draw(labels), columns, rows, loop, draw(st.sampled_from([30000, 30001, 50001])))


def one_block(text: str) -> StarBlock:
    return next(iter(parse_star(text).values()))


class TestRoundTrip:
    @given(st.lists(blocks(), min_size=1, max_size=3, unique_by=lambda block: block.name))
    def test_any_text_comes_back_as_it_was(self, written: list[StarBlock]) -> None:
        assert list(parse_star(format_star(written)).values()) == written

    @given(st.floats(-1e12, 1e12), st.integers(-(2**62), 2**62))
    def test_numbers_come_back_to_the_precision_of_the_format(self, number: float, whole: int) -> None:
        block = one_block(format_star([StarBlock("x", ["number", "whole"], [[number, whole]])]))
        assert block.floats("number")[0] == pytest.approx(number, rel=1.1e-5, abs=1e-30)
        assert int(block.texts("whole")[0]) == whole

    @given(st.binary(max_size=200))
    def test_no_content_raises_anything_but_a_clear_error(self, content: bytes) -> None:
        message = "some.star"
        try:
            parse_star(b"data_x\n" + content, "some.star")
        except CorruptFileError as error:
            message = str(error)
        assert "some.star" in message

    def test_file_names_that_are_not_utf8_survive(self, tmp_path: Path) -> None:
        path = tmp_path / "a.star"
        path.write_bytes(b"data_\nloop_\n_rlnMicrographName #1\nmic\xff\xb5.mrc\n")
        write_star(tmp_path / "b.star", read_star(path).values())
        assert b"mic\xff\xb5.mrc" in (tmp_path / "b.star").read_bytes()

    @pytest.mark.data
    @needs_data
    @pytest.mark.parametrize("path", STAR_FILES, ids=lambda path: str(path.relative_to(DATA)))
    def test_every_real_file(self, path: Path) -> None:
        if path.name in BROKEN:
            with pytest.raises(CorruptFileError, match=BROKEN[path.name]):
                read_star(path)
            return
        read = read_star(path)
        assert parse_star(format_star(read.values())) == read

    @pytest.mark.data
    @needs_golden
    def test_files_of_relion_are_written_byte_by_byte_as_relion_writes_them(self) -> None:
        compared = 0
        for path in sorted(GOLDEN.glob("*/**/*.star")):
            if (
                path.stat().st_size == 0
                or path.name.startswith((".gui", "coords_suffix"))
                or path.name == "job.star"
                or path.parent.name == "job009"
            ):
                continue  # not STAR files, not by RELION, or options, which RELION keeps as text also where they look like numbers
            read = read_star(path)
            for block in read.values():
                block.rows = [[as_number(str(value)) for value in row] for row in block.rows]
            first = [
                line[2:]
                for line in path.read_text().split("\n")[:2]
                if line.startswith("# ") and "version 3000" not in line
            ]
            assert format_star(read.values(), first) == re.sub(r"(?m)^(# .*?) +$", r"\1", path.read_text()), path
            compared += 1
        assert compared > 50


def as_number(text: str) -> str | int | float:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d+\.\d+(e[-+]\d+)?|inf", text) else text


class TestReading:
    def test_blocks_keep_their_order_kind_and_version(self) -> None:
        read = parse_star("\n# version 30001\n\ndata_general\n\n_rlnA 1\n\ndata_\nloop_\n_rlnB #1\n2\n3")
        assert [(name, block.loop, len(block), block.version) for name, block in read.items()] == [
            ("general", False, 1, 30001),
            ("", True, 2, 30000),
        ]

    @pytest.mark.parametrize(
        ("line", "values"),
        [
            ("a 'b c' \"\"", ["a", "b c", ""]),
            ('it\'s "say x"y now" c', ["it's", 'say x"y now', "c"]),
            ("a#b b c # a comment", ["a#b", "b", "c"]),
            ("a #b c", ["a", "#b", "c"]),
            ("a b # a comment", None),
            ("a\tb\r", None),
            ("data_run1/mic.mrc b c", ["data_run1/mic.mrc", "b", "c"]),
            ("_u b c", ["_u", "b", "c"]),
            ("µ\xa0m b c", ["µ\xa0m", "b", "c"]),
        ],
    )
    def test_values_of_a_row(self, line: str, values: list[str] | None) -> None:
        text = f"data_x\nloop_\n_a #1\n_b #2\n_c #3\n{line}\n"
        if values is None:
            with pytest.raises(CorruptFileError, match=r"has \d values for 3 columns"):
                parse_star(text)
        else:
            assert one_block(text).rows == [values]

    def test_blank_lines_and_comments_within_a_table_are_nothing(self) -> None:
        assert one_block("data_x\nloop_\n_a\n1\n\n# note\n2\n").texts("a") == ["1", "2"]

    def test_an_empty_table_has_columns_and_no_rows(self) -> None:
        block = one_block("data_\nloop_\n_rlnCoordinateX #1\n")
        assert (block.columns, len(block)) == (["rlnCoordinateX"], 0)
        assert block.floats("rlnCoordinateX").shape == (0,)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("  \n\n", "is empty"),
            ("# only a comment\n", "has no data_ block"),
            ("Movies/mic001.mrcs\n", "line 1: .* before the first data_ block"),
            ("data_x\nloop_\n_a\n_b\n1 2\n3\n", "line 6: a row of data_x has 1 values for 2 columns"),
            ("data_x\n_a 1\n_a 2\n", "line 3: .*twice"),
            ("data_x\n_a 1 2\n", "line 2: .*2 values"),
            ("data_x\n_a\n", "line 2: .*0 values"),
            ("data_x\n_a 1\nloop_\n_b\n", "line 3: a second loop_"),
            ("data_x\n_a 1\n5 6\n", "line 3: .*neither"),
            ("data_x\n_a 1\ndata_x\n_a 1\n", "line 3: a second block"),
            ("data_x\nloop_\n", "loop_ without columns"),
            ("data_x\n_a \0\n", "null bytes"),
            ("data_x\n\x1c\n", "line 2: .*neither"),
            ("data_x\n\xa0\n", "line 2: .*neither"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_line(self, text: str, message: str) -> None:
        with pytest.raises(CorruptFileError, match=message):
            parse_star(text, "some.star")

    def test_a_missing_file_is_the_users_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"gone\.star cannot be read"):
            read_star(tmp_path / "gone.star")


class TestValues:
    block = one_block("data_p\nloop_\n_x\n_n\n_t\n1.5 3 a\n-2e3 4 b\n")

    def test_columns_convert_to_numbers(self) -> None:
        np.testing.assert_array_equal(self.block.floats("x"), [1.5, -2000])
        np.testing.assert_array_equal(self.block.integers("n"), [3, 4])
        assert self.block.floats("x").dtype == np.float64
        assert self.block.integers("n").dtype == np.int64

    def test_whole_numbers_may_be_written_with_decimals(self) -> None:
        np.testing.assert_array_equal(one_block("data_p\nloop_\n_n\n3.000000\n4\n").integers("n"), [3, 4])

    @pytest.mark.parametrize(("call", "column", "value"), [("floats", "t", "'a'"), ("integers", "x", "'1.5'")])
    def test_a_value_that_does_not_convert_is_named(self, call: str, column: str, value: str) -> None:
        with pytest.raises(CorruptFileError, match=f"Row 1 of {column} in data_p is {value}"):
            getattr(self.block, call)(column)

    def test_a_missing_column_is_named_with_those_that_are_there(self) -> None:
        with pytest.raises(CorruptFileError, match=r"no column y \(it has x, n, t\)"):
            self.block.column("y")

    def test_single_values(self) -> None:
        assert one_block("data_\n_a 1\n").single("a") == "1"
        with pytest.raises(CorruptFileError, match="2 values of x where one is expected"):
            self.block.single("x")

    def test_records_and_back(self) -> None:
        records = self.block.records()
        assert records[1] == {"x": "-2e3", "n": "4", "t": "b"}
        assert StarBlock.from_records("p", records).rows == self.block.rows
        with pytest.raises(InputError, match="Row 2 of data_p"):
            StarBlock.from_records("p", [{"a": 1}, {"b": 1}])


class TestWriting:
    def test_the_layout_is_relions(self) -> None:
        table = StarBlock("m", ["rlnMicrographName", "rlnOpticsGroup", "rlnDefocusU"], [["a.mrc", 1, 10123.4567891]])
        listed = StarBlock.from_mapping("g", {"rlnImageSizeX": 512, "rlnMicrographMovieName": "a.mrcs"})
        assert format_star([table, listed], ["made by x"]) == (
            "# made by x\n\n# version 30001\n\ndata_m\n\nloop_ \n_rlnMicrographName #1 \n_rlnOpticsGroup #2 \n_rlnDefocusU #3 \n"
            "     a.mrc            1 10123.456789 \n \n"
            "\n# version 30001\n\ndata_g\n\n_rlnImageSizeX                              512\n_rlnMicrographMovieName            a.mrcs\n \n"
        )

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.0, "0.000000"),
            (-0.750791, "-0.75079"),
            (-0.00123456, "-1.23456e-03"),
            (-0.25, "-0.25000"),
            (0.00005262145, "5.262145e-05"),
            (0.0234375, "2.343750e-02"),
            (142535.8, "1.425358e+05"),
            (99999.5, "99999.500000"),
            (float("inf"), "inf"),
            (np.float32(2.5), "2.500000"),
            (np.int64(7), "7"),
            (True, "1"),
        ],
    )
    def test_numbers_stand_as_relion_writes_them(self, value: float, text: str) -> None:
        assert format_star([StarBlock("x", ["a"], [[value]])]).split("\n")[-3].strip() == text

    @pytest.mark.parametrize("value", ["two\nlines", "a \" b ' c \" d ' e"])
    def test_what_a_star_file_cannot_hold_is_refused(self, value: str) -> None:
        with pytest.raises(InputError, match="cannot stand in a STAR file"):
            format_star([StarBlock("x", ["a"], [[value]])])

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (StarBlock("x", ["a", "b"], [[1]]), "has 1 values for 2 columns"),
            (StarBlock("x", ["a"], [[1], [2]], loop=False), "a list has exactly one"),
            (StarBlock("x y", ["a"], [[1]]), "STAR names have none"),
            (StarBlock("x", ["a b"], [[1]]), "STAR names have none"),
        ],
    )
    def test_blocks_that_do_not_fit_are_refused(self, block: StarBlock, message: str) -> None:
        with pytest.raises(InputError, match=message):
            format_star([block])

    def test_two_blocks_of_one_name_are_refused(self) -> None:
        with pytest.raises(InputError, match="two blocks of one name"):
            format_star([StarBlock("x", ["a"]), StarBlock("x", ["a"])])

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.star"
        write_star(path, [StarBlock("x", ["a"], [[1]])])
        before = path.read_bytes()

        def full_disk(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_star(path, [StarBlock("x", ["a"], [[2]])])
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["a.star"]


def test_a_byte_order_mark_of_an_editor_is_no_part_of_the_file() -> None:
    text = "data_\n\nloop_\n_rlnReferenceImage #1\n000001@x.mrcs\n"
    assert parse_star(b"\xef\xbb\xbf" + text.encode())[""].texts("rlnReferenceImage") == ["000001@x.mrcs"]
    assert parse_star("\ufeff" + text)[""].texts("rlnReferenceImage") == ["000001@x.mrcs"]


def test_values_that_are_the_same_can_be_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "many.star"
    rows: list[list[Value]] = [[f"{number}@a b.mrcs", "a b.mrc", 1.5, number % 2] for number in range(6)]
    write_star(path, [StarBlock("particles", ["rlnImageName", "rlnMicrographName", "rlnDefocusU", "rlnGroup"], rows)])
    apart, shared = read_star(path)["particles"], read_star(path, sharing=True)["particles"]
    assert shared == apart
    assert len({id(value) for row in apart.rows for value in row}) > len(
        {id(value) for row in shared.rows for value in row}
    )
    assert len({id(row[1]) for row in shared.rows}) == 1
