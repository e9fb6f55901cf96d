import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.cli.options import all_flags
from beamside.cli.session import start
from beamside.cli.streampyp import main, parse
from beamside.cli.streampyp_translation import DIRECT, KNOWN, SWITCHES, gain_orientation, translate
from beamside.errors import ConfigError

MANUAL = """
-scope_pixel 1.08 -scope_voltage 300 -gain_reference=gainPath -data_path=dataPath -stream_transfer_target=outputName
-stream_session_name sessionName -stream_session_group groupName -stream_transfer_remove -detect_rad 100 -class2d_num 50
-class2d_box 128 -class2d_bin 2 -slurm_tasks 7 -slurm_memory 14 -slurm_class2d_tasks 70 -slurm_class2d_memory 140
"""
"""The command line of streampyp's manual."""

VALUED = sorted(KNOWN - SWITCHES)


def translated(text: str) -> dict[str, list[str]]:
    """Return the values by flag of the command line that `text` becomes."""
    found: dict[str, list[str]] = {}
    arguments = translate(parse(shlex.split(text))).arguments
    for word in arguments:
        if word.startswith("--"):
            flag = word
            found.setdefault(flag, [])
        else:
            found[flag].append(word)
    return found


class TestSpelling:
    @given(
        name=st.sampled_from(VALUED),
        value=st.text(min_size=1, max_size=30).filter(lambda text: not text.startswith("-")),
        before=st.sampled_from(sorted(SWITCHES)),
    )
    def test_three_spellings_mean_the_same(self, name: str, value: str, before: str) -> None:
        spellings = [[f"--{name}", value], [f"-{name}={value}"], [f"-{name}", value], [f"--{name}={value}"]]
        for spelling in spellings:
            assert parse([f"-{before}", *spelling]) == {before: None, name: value}
            assert parse([*spelling, f"-{before}"]) == {before: None, name: value}

    def test_negative_numbers_are_values(self) -> None:
        assert parse(["-gain_rotation", "-90", "-scope_cs", "-1.5e-3"]) == {
            "gain_rotation": "-90",
            "scope_cs": "-1.5e-3",
        }

    def test_switches_take_true_and_false_but_nothing_else(self) -> None:
        assert parse(["-stream_transfer_remove", "False"]) == {"stream_transfer_remove": "False"}
        with pytest.raises(ConfigError, match="belongs to no option"):
            parse(["-stream_transfer_remove", "a.tif"])

    def test_a_pattern_that_the_shell_has_expanded(self) -> None:
        with pytest.raises(ConfigError, match=r"'b\.tif' belongs to no option: put patterns of file names into quotes"):
            parse(["-data_path", "a.tif", "b.tif"])

    def test_the_last_of_two_counts(self) -> None:
        assert parse(["-class2d_num", "5", "-class2d_num=6"]) == {"class2d_num": "6"}

    def test_values_may_have_equal_signs_and_blanks(self) -> None:
        assert parse(["-data_path=/a b/x=1/*.tif"]) == {"data_path": "/a b/x=1/*.tif"}


class TestTheManual:
    def test_its_command_line_becomes_the_same_session(self) -> None:
        assert translated(MANUAL) == {
            "--pixel-size": ["1.08"],
            "--voltage": ["300"],
            "--gain": ["gainPath"],
            "--data": ["dataPath"],
            "--target": ["outputName"],
            "--name": ["sessionName"],
            "--group": ["groupName"],
            "--remove-source": [],
            "--particle-diameter": ["160:240"],
            "--classes": ["50"],
            "--class-box": ["128"],
            "--box-size": ["256"],
            "--workers": ["7"],
            "--memory": ["2"],
        }

    def test_each_option_is_accounted_for_in_words(self) -> None:
        options = parse(shlex.split(MANUAL))
        lines = translate(options).lines
        assert len(lines) == len(options)
        for name, line in zip(options, lines, strict=True):
            assert line.startswith(f"-{name}")
            assert " -> " in line or " has no counterpart: " in line
        assert "-slurm_class2d_tasks 70 has no counterpart: 2D classification runs in one of the workers" in lines

    def test_every_flag_that_something_becomes_exists(self) -> None:
        flags = set(all_flags(start))
        example = {"data_mode": "spr", "stream_transfer_operation": "move", "stream_compress": "tif"}
        for name in sorted(KNOWN):
            value = None if name in SWITCHES else example.get(name, "2")
            options = {"stream_scope_profile": "krios", name: value}
            for word in translate(options).arguments:
                assert not word.startswith("--") or word in flags, (name, word)


class TestMeanings:
    def test_a_radius_becomes_a_range_of_diameters(self) -> None:
        assert translated("-detect_rad 80") == {"--particle-diameter": ["128:192"]}

    def test_the_box_counts_binned_pixels(self) -> None:
        assert translated("-class2d_box 96") == {"--class-box": ["96"], "--box-size": ["384"]}
        assert translated("-class2d_bin 2") == {"--class-box": ["96"], "--box-size": ["192"]}

    def test_scope_and_camera_become_a_profile(self) -> None:
        both = "-stream_scope_profile krios -stream_camera_profile k3"
        assert translated(both) == {"--profile": ["krios.k3"]}
        assert translated("-stream_camera_profile k3 -stream_scope_profile krios") == {"--profile": ["krios.k3"]}
        assert translated("-stream_scope_profile krios") == {"--profile": ["krios"]}
        with pytest.raises(ConfigError, match="needs -stream_scope_profile"):
            translated("-stream_camera_profile k3")

    def test_a_directory_of_data_is_searched_for_movies(self, tmp_path: Path) -> None:
        data = translated(f"-data_path {shlex.quote(str(tmp_path))}")["--data"]
        assert f"{tmp_path}/**/*.tif" in data

    def test_moving_is_removing_after_verification(self) -> None:
        assert translated("-stream_transfer_operation move") == {"--remove-source": []}
        assert translated("-stream_transfer_operation link") == {"--no-remove-source": []}
        assert translated("-stream_transfer_remove=false") == {}

    def test_single_particles_only(self) -> None:
        assert translated("-data_mode spr") == {"--workflow": ["movies"]}
        assert translated("-data_mode spr -movie_no_frames") == {"--workflow": ["micrographs"]}
        with pytest.raises(ConfigError, match="only single-particle"):
            translated("-data_mode tomo")
        with pytest.raises(ConfigError, match="tilt series"):
            translated("-tomo_rec_thickness 256")

    def test_options_of_beamside_may_be_mixed_in(self) -> None:
        options = parse(["--dose", "1.2", "-remove-source", "--foreground"], SWITCHES | {"remove_source", "foreground"})
        assert translate(options).arguments == ["--dose", "1.2", "--remove-source", "--foreground"]

    def test_an_unknown_option_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"unknown option -scope_pixl 1; did you mean -scope_pixel\?"):
            translated("-scope_pixl 1")

    @pytest.mark.parametrize("text", ["-detect_rad wide", "-class2d_box", "-scope_pixel", "-stream_compress zip"])
    def test_values_that_mean_nothing(self, text: str) -> None:
        with pytest.raises(ConfigError):
            translated(text)

    def test_direct_options_are_known(self) -> None:
        assert set(DIRECT) <= KNOWN

    @pytest.mark.parametrize("rotation", [0, 1, 2, 3, 90, 180, 270, -90])
    @pytest.mark.parametrize("horizontal", [False, True])
    @pytest.mark.parametrize("vertical", [False, True])
    def test_the_gain_ends_up_the_same_way_round(self, rotation: int, horizontal: bool, vertical: bool) -> None:
        gain = np.arange(6).reshape(2, 3)
        theirs = gain[:, ::-1] if horizontal else gain
        theirs = theirs[::-1] if vertical else theirs
        theirs = np.rot90(theirs, -(rotation // 90 if abs(rotation) >= 90 else rotation))
        turns, flip = gain_orientation(rotation, horizontal, vertical)
        ours = np.rot90(gain, -turns)
        ours = {"none": ours, "left-right": ours[:, ::-1], "up-down": ours[::-1]}[flip]
        np.testing.assert_array_equal(ours, theirs)

    def test_the_gain_is_turned_once_whatever_the_order_of_options(self) -> None:
        wanted = {"--gain-rotate": ["90"], "--gain-flip": ["up-down"]}
        assert translated("-gain_fliph -gain_rotation 1") == wanted
        assert translated("-gain_rotation 90 -gain_fliph") == wanted


class TestTheCommand:
    def run(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(words)
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    def test_it_says_what_each_option_became_and_the_same_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = [*shlex.split(MANUAL), "--show"]
        code, out, err = self.run(words, capsys)
        assert code == 0, err
        assert "streampyp: -detect_rad 100 -> --particle-diameter 160:240 (a radius in Å" in out
        assert "The same session: beamside session start --pixel-size 1.08" in out
        assert "groupName" in out

    def test_errors_are_sentences(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = self.run(["-scope_pixels=1"], capsys)
        assert (code, out) == (2, "")
        assert err == "beamside: unknown option -scope_pixels 1; did you mean -scope_pixel?\n"

    def test_without_arguments_it_explains_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = self.run([], capsys)
        assert code == 0
        assert out.startswith("Usage: streampyp")
