import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import beamside as package
from beamside.cli.main import main
from beamside.cli.root import in_sentences
from beamside.errors import GainError


def test_version(beamside) -> None:
    assert beamside("--version")[:2] == (0, f"beamside {package.__version__}\n")


@pytest.mark.parametrize(
    "words", [["--help"], ["session", "--help"], ["session", "start", "-h"], ["project", "verify", "-h"]]
)
def test_help_is_everywhere(beamside, words: list[str]) -> None:
    code, out, err = beamside(*words)
    assert code == 0
    assert out.startswith("Usage: beamside")
    assert not err


@pytest.mark.parametrize("words", [[], ["session"], ["project"]])
def test_a_command_that_is_left_out_is_answered_with_the_help(beamside, words: list[str]) -> None:
    code, out, err = beamside(*words)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")
    assert "\nCommands:\n" in err


def test_every_command_says_what_it_does() -> None:
    def walk(command: click.Command, path: str) -> None:
        assert command.help, f"{path} has no help"
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    walk(main, "beamside")


def test_the_commands_that_users_are_promised() -> None:
    session = main.commands["session"]
    assert isinstance(session, click.Group)
    assert set(main.commands) == {"demo", "init", "project", "report", "session", "workflow"}
    promised = {"start", "status", "list", "logs", "pause", "resume", "stop", "retry", "gain", "report", "show-config"}
    promised |= {"accept", "gate", "offers", "reject", "set", "take"}
    assert set(session.commands) == promised
    assert set(main.commands["project"].commands) == {"rebuild", "verify"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["sesion"], "'session'"),
        (["session", "strat"], "'start'"),
        (["session", "start", "--pixelsize", "1"], "--pixel-size"),
        (["session", "start", "--voltag=300"], "--voltage"),
        (["demo", "--movie", "3"], "--movies"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_right_one(beamside, words: list[str], meant: str) -> None:
    code, out, err = beamside(*words)
    assert code == 2
    assert out == ""
    assert err.startswith("beamside: unknown ")
    assert f"did you mean {meant}?" in err
    assert err.count("\n") == 1


def test_a_pattern_that_the_shell_has_expanded(beamside) -> None:
    code, _, err = beamside("session", "start", "--data", "a.tif", "b.tif", "c.tif")
    assert code == 2
    assert "quotes" in err


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["session", "start", "--gain-check", "no"], "--gain-check or --no-gain-check"),
        (["session", "start", "--data", "*.tif", "--gain-check=no", "--name", "x"], "--gain-check or --no-gain-check"),
        (["session", "start", "--no-compress", "true", "more"], "--compress or --no-compress"),
        (["session", "start", "--show=1"], "--show, or leave it out"),
        (["session", "logs", "run1", "-f", "20"], "--follow, or leave it out"),
    ],
)
def test_a_switch_that_is_given_a_value_is_answered_with_how_switches_are_written(
    beamside, words: list[str], written: str
) -> None:
    code, _, err = beamside(*words)
    assert code == 2
    assert "is a switch and takes no value" in err
    assert f"write {written}\n" in err


class TestErrorsAreSentences:
    def test_an_error_is_one_sentence_and_exit_code_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        def fail() -> None:
            raise GainError("the gain is\n   64 x 64")

        assert in_sentences(fail) == 2
        assert capsys.readouterr().err == "beamside: the gain is 64 x 64\n"

    def test_debug_shows_where_it_happened(self, capsys: pytest.CaptureFixture[str]) -> None:
        def fail() -> None:
            raise GainError("wrong")

        assert in_sentences(fail, debug=True) == 2
        assert "Traceback" in capsys.readouterr().err

    def test_ctrl_c_is_130(self, capsys: pytest.CaptureFixture[str]) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        assert in_sentences(interrupt) == 130
        assert "interrupted" in capsys.readouterr().err

    def test_a_missing_file_names_the_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert in_sentences(lambda: Path("gone.txt").read_text()) == 2
        assert capsys.readouterr().err == "beamside: gone.txt: No such file or directory\n"

    def test_mistakes_of_the_program_are_not_hidden(self) -> None:
        with pytest.raises(ZeroDivisionError):
            in_sentences(lambda: 1 / 0)

    def test_the_exit_code_of_a_command_is_kept(self) -> None:
        assert in_sentences(lambda: 3) == 3
        assert in_sentences(lambda: None) == 0

    def test_debug_is_understood_anywhere(self, beamside) -> None:
        code, _, err = beamside("session", "status", "nowhere", "--debug")
        assert code == 2
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("beamside: ")


@pytest.mark.parametrize(("words", "completed"), [("beamside sess", "session"), ("beamside session sta", "start")])
def test_words_can_be_completed_by_the_shell(words: str, completed: str) -> None:
    asked = {"_BEAMSIDE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = "from beamside.cli.main import main; main(prog_name='beamside')"
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert f"plain,{completed}" in ended.stdout.splitlines()


def test_the_command_line_starts_without_torch() -> None:
    program = "import sys, beamside.cli.main, beamside.cli.streampyp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
