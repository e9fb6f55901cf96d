import tomllib
from pathlib import Path

from beamside.cli.init import example_text
from beamside.cli.options import vocabulary
from beamside.config import load_facility


def test_the_example_is_valid_and_says_what_it_is_for(beamside, home: Path) -> None:
    code, out, _ = beamside("init")
    assert code == 0
    assert "beamside.toml was written" in out
    facility = load_facility(vocabulary(), home / "beamside.toml")
    assert facility.profiles() == ["krios", "krios.k3", "krios.falcon", "glacios", "glacios.k2"]
    profile = facility.profile("krios.k3")
    assert profile["voltage"].value == 300
    assert len(profile["paths"].value) == 2
    assert sum(line.startswith("#") or " # " in line for line in example_text().splitlines()) > 20


def test_commented_settings_of_the_example_are_valid_too() -> None:
    text = example_text().replace("# group", "group").replace("# workers", "workers")
    stream = tomllib.loads(text)["stream"]
    assert {"target", "group", "workers"} <= {key for key, value in stream.items() if not isinstance(value, dict)}
    assert {"group", "workers"} <= set(vocabulary().names)


def test_a_file_that_is_there_is_never_overwritten_unasked(beamside, home: Path) -> None:
    (home / "beamside.toml").write_text("# mine\n")
    code, _, err = beamside("init")
    assert code == 2
    assert "exists already" in err
    assert (home / "beamside.toml").read_text() == "# mine\n"
    assert beamside("init", "--force")[0] == 0
    assert "[stream.krios.k3]" in (home / "beamside.toml").read_text()


def test_it_can_be_written_into_a_directory(beamside, tmp_path: Path) -> None:
    assert beamside("init", str(tmp_path))[0] == 0
    assert (tmp_path / "beamside.toml").exists()
