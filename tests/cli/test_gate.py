"""`session gate` shows what rules hold back, asks, and changes them; the project is that of a stopped session."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from beamside.cli.resolution import resolve_session
from beamside.flow import control
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare
from beamside.flow.stored_settings import load_settings
from beamside.flow.table import Tables
from beamside.formats.star import read_star
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

DEFOCUS = {"defocus_u": 15000.0, "defocus_v": 15000.0, "defocus_angle": 0.0, "micrograph_pixel_size": 1.0}


@pytest.fixture
def project(home: Path) -> Project:
    """A stopped session of ten micrographs: their CTF fits hold to 3 to 12 Å, and each has 10 particles but the last, of which none were picked."""
    settings = SessionSettings.from_flat(
        {"target": home / "out", "group": "lab", "name": "run1", "data": (str(home / "*.mrc"),), "pixel_size": 1.0}
        | {"voltage": 300, "workflow": "micrographs"}
    )
    prepare(settings)
    found = Project(settings.root)
    with ProjectWriter(found) as writer:
        writer.settings(settings.to_json())
        tables = Tables(settings, writer)
        for number in range(10):
            for stage in tables.stages[: 2 if number == 9 else 4]:
                name, job = f"raw/m{number}", stage.job.name
                metrics = {"ctf_resolution": 3.0 + number, "astigmatism": 10.0, "ctf_score": 0.2}
                metrics |= {"extracted": 10.0, "particles": 10.0, "pick_score": 1.0}
                outputs = {"micrograph": f"{name}.mrc", "ctf_spectrum": "s", "coordinates": "c"}
                result: dict[str, Any] = {"metrics": metrics, "outputs": outputs, "values": DEFOCUS}
                writer.item(job, name, ItemState.WAITING)
                writer.item(job, name, ItemState.QUEUED)
                key = "content" if stage is tables.stages[0] else stage.expected_key(name)
                writer.item(job, name, ItemState.DONE, key=key, result=result)
        writer.session("stopped")
    return found


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return


def rules(project: Project) -> tuple[str, ...]:
    return load_settings(project).session.gate


def shown(project: Project) -> list[str]:
    table = read_star(project.root / "CtfFind/job002/micrographs_ctf.star")["micrographs"]
    return [Path(name).stem for name in table.texts("rlnMicrographName")]


def test_a_preview_says_what_would_be_held_back_and_changes_nothing(beamside, project: Project) -> None:
    before = project.project_journal.read_bytes()
    code, out, err = beamside("session", "gate", "preview", "ctf.resolution < 9", "--session", "run1")
    assert code == 0, err
    assert "CTF estimation: 4 of 10 results are held back: raw/m6, raw/m7, raw/m8, raw/m9" in out
    assert "Particles (Extraction): 60 instead of 90 (-30)" in out
    assert project.project_journal.read_bytes() == before
    assert rules(project) == ()
    _, out, _ = beamside("session", "gate", "preview", "ctf.resolution < 90", "--session", "run1")
    assert "No result so far" in out


def test_a_rule_is_added_and_removed_after_it_was_shown_and_the_tables_follow(beamside, project: Project) -> None:
    code, out, err = beamside("session", "gate", "add", "ctf.resolution < 9", "--session", "run1")
    assert code == 2
    assert "add --yes" in err
    assert "4 of 10 results are held back" in out
    assert rules(project) == ()
    code, out, err = beamside("session", "gate", "add", "ctf.resolution < 9", "--session", "run1", "--yes")
    assert code == 0, err
    assert "The rules are: ctf.ctf_resolution < 9 Å." in out
    assert "session resume" in out
    assert shown(project) == [f"m{number}" for number in range(6)]
    code, out, _ = beamside("session", "gate", "list", "run1")
    assert "ctf.ctf_resolution < 9 Å   (4 results break it; --gate)" in out
    code, out, _ = beamside("session", "gate", "add", "ctf_resolution<9", "--session", "run1")
    assert "has these rules already" in out
    code, out, err = beamside("session", "gate", "remove", "ctf.resolution", "--session", "run1", "--yes")
    assert code == 0, err
    assert "4 of 10 results are let through: raw/m6, raw/m7, raw/m8, raw/m9; 1 still to be processed further" in out
    assert "Particles (Extraction): 90 instead of 60 (+30)" in out
    assert "There are no rules now." in out
    assert shown(project) == [f"m{number}" for number in range(10)]
    assert beamside("session", "gate", "list", "run1")[1] == "There are no rules.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["remove", "ctf.defocus"], "none of the session's rules; they are: ctf.ctf_resolution <= 6 Å (set by"),
        (["remove", "ctf_resolution <= 6"], "set by --reject-resolution"),
        (["add", "ctf.defocuss < 2"], "did you mean 'ctf.defocus'"),
        (["preview", "ctf.defocus"], "is no rule"),
        (["ad", "x"], "did you mean 'add'"),
        (["ctf.resolution < 6"], "session gate add RULE"),
    ],
)
def test_what_cannot_be_done_is_told(beamside, project: Project, words: list[str], said: str) -> None:
    assert beamside("session", "set", "run1", "--reject-resolution", "6", "--yes")[0] == 0
    code, _, err = beamside("session", "gate", *words, "--session", "run1")
    assert code == 2
    assert said in err


def test_setting_a_limit_shows_what_it_holds_back_and_computes_nothing(beamside, project: Project) -> None:
    code, out, err = beamside("session", "set", "run1", "--reject-resolution", "8")
    assert code == 2
    assert "--yes" in err
    assert "Nothing is computed again." in out
    assert "CTF estimation: 4 of 10 results are held back" in out
    code, out, err = beamside("session", "set", "run1", "--reject-resolution", "8", "--yes")
    assert code == 0, err
    assert "The tables are written so" in out
    assert shown(project) == [f"m{number}" for number in range(6)], "what is at the limit is kept"
    code, out, err = beamside("session", "set", "run1", "--gate", "particles > 5", "--reject-resolution", "0", "--yes")
    assert code == 0, err
    assert "4 of 10 results are let through" in out
    assert rules(project) == ("pick.particles > 5",)
    assert len(shown(project)) == 10


def test_a_session_that_runs_takes_the_rules(beamside, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []

    def asked(_project: Project, name: str, fields: dict[str, Any]) -> control.Outcome:
        sent.append((name, fields))
        return control.Outcome("done", "The rules are: x.")

    monkeypatch.setattr("beamside.cli.telling.ask", asked)
    monkeypatch.setattr(Project, "writer_process", lambda _self: object())
    code, out, err = beamside("session", "gate", "add", "defocus < 3", "--session", "run1", "--yes")
    assert code == 0, err
    assert sent == [("gate", {"add": ["defocus < 3"], "remove": []})]
    assert "resume" not in out


@pytest.mark.usefixtures("terminal")
def test_a_person_may_say_no(beamside, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(_text: str, *, abort: bool) -> None:
        raise click.Abort

    monkeypatch.setattr(click, "confirm", no)
    assert beamside("session", "gate", "add", "ctf.resolution < 9", "--session", "run1")[0] != 0
    assert rules(project) == ()


def test_a_word_is_followed_by_the_tables_also_when_no_session_runs(beamside, project: Project) -> None:
    beamside("session", "gate", "add", "ctf.resolution < 5", "--session", "run1", "--yes")
    assert shown(project) == ["m0", "m1"]
    code, out, err = beamside("session", "accept", "m7", "--session", "run1")
    assert code == 0, err
    assert "CtfFind/job002: raw/m7 is accepted." in out
    assert shown(project) == ["m0", "m1", "m7"]


def test_tables_are_written_with_the_settings_of_their_results(beamside, project: Project) -> None:
    code, _, err = beamside("session", "set", "run1", "--pixel-size", "2", "--yes")
    assert code == 0, err
    beamside("session", "gate", "add", "ctf.resolution < 5", "--session", "run1", "--yes")
    optics = read_star(project.root / "CtfFind/job002/micrographs_ctf.star")["optics"]
    assert optics.floats("rlnMicrographOriginalPixelSize").tolist() == [1.0]
    assert load_settings(project).optics.pixel_size == 2.0
    assert rules(project) == ("ctf.ctf_resolution < 5 Å",)


def test_rules_of_the_facility_s_file_and_of_the_command_line(beamside, home: Path) -> None:
    words = ["--data", "x/*.tiff", "--pixel-size", "1", "--voltage", "300", "--target", "out", "--name", "n"]
    (home / "b.toml").write_text('[stream]\ngate = ["ctf.resolution < 7", "defocus < 3 um"]\n')
    resolved = resolve_session(
        {"target": "out", "name": "n", "pixel_size": 1, "voltage": 300, "data": ("x",)}, config=home / "b.toml"
    )
    assert resolved.settings.session.gate == ("ctf.ctf_resolution < 7 Å", "ctf.defocus < 3 µm")
    code, out, err = beamside(
        "session", "start", "--show", *words, "--gate", "ctf.resolution<5", "--gate", "particles > 3"
    )
    assert code == 0, err
    assert "ctf.resolution<5, particles > 3" in out
    code, _, err = beamside("session", "start", *words, "--gate", "ctf.resolutoin < 5")
    assert code == 2
    assert "did you mean 'ctf.ctf_resolution'" in err


def test_a_word_is_looked_at_before_it_is_given(beamside, project: Project) -> None:
    before = project.project_journal.read_bytes()
    code, out, err = beamside("session", "reject", "m1", "m2", "--session", "run1", "--preview")
    assert code == 0, err
    assert "2 of 10 results are held back: raw/m1, raw/m2" in out
    assert "Particles (Extraction): 70 instead of 90 (-20)" in out
    assert project.project_journal.read_bytes() == before
    beamside("session", "reject", "m1", "--session", "run1")
    _, out, _ = beamside("session", "reject", "m1", "--undo", "--session", "run1", "--preview")
    assert "1 of 10 results is let through: raw/m1" in out
    _, out, _ = beamside("session", "reject", "m1", "--session", "run1", "--preview")
    assert "No result so far" in out
