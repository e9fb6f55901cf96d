from pathlib import Path
from typing import Any

import pytest

from beamside.cli.options import value_text
from beamside.cli.resolution import resolve_session
from beamside.errors import ConfigError
from beamside.flow.settings import SessionSettings

GIVEN: dict[str, Any] = {
    "target": "out",
    "name": "run1",
    "data": ("/camera/*.tiff",),
    "pixel_size": "1.08",
    "voltage": "300",
}

FACILITY = """
[stream]
target = "sessions"

[stream.krios]
voltage = 300

[stream.krios.k3]
paths = ["frames", "averages"]
pattern = "*_fractions.tiff"
pixel_size = 0.83
classes = 20
particle_diameter = "100:160"
"""


def sentence(**given: Any) -> str:
    with pytest.raises(ConfigError) as error:
        resolve_session({**GIVEN, **given})
    return str(error.value)


class TestValues:
    def test_text_becomes_what_is_declared(self) -> None:
        settings = resolve_session({**GIVEN, "particle_diameter": "100:160", "classes": "40"}).settings
        assert settings.optics.pixel_size == 1.08
        assert settings.jobs["pick"].model_dump()["particle_diameter"] == (100.0, 160.0)
        assert settings.jobs["class2d"].model_dump()["classes"] == 40

    @pytest.mark.parametrize("typed", ["1", "2"])
    def test_choices_that_are_numbers_are_taken_as_they_are_typed(self, typed: str) -> None:
        settings = resolve_session({**GIVEN, "eer_upsampling": typed}).settings
        assert settings.jobs["motion"].model_dump()["eer_upsampling"] == int(typed)
        assert "--eer-upsampling 3: must be one of 1 or 2" in sentence(eer_upsampling="3")

    def test_the_project_is_target_group_name(self, home: Path) -> None:
        assert resolve_session({**GIVEN, "group": "lab"}).settings.root == home / "out" / "lab" / "run1"

    def test_paths_become_absolute_because_the_session_outlives_this_directory(self, home: Path) -> None:
        settings = resolve_session({**GIVEN, "gain": "gain.mrc", "data": ("run/**/*.tiff",)}).settings
        assert settings.acquisition.gain == str(home / "gain.mrc")
        assert settings.acquisition.data == (str(home / "run/**/*.tiff"),)

    def test_settings_survive_their_json(self) -> None:
        settings = resolve_session({**GIVEN, "particle_diameter": "90:110", "sidecars": (".json",)}).settings
        again = type(settings).from_flat(settings.to_json())
        assert again.to_json() == settings.to_json()


class TestMistakes:
    def test_what_is_missing_is_listed_with_units(self) -> None:
        with pytest.raises(ConfigError) as error:
            resolve_session({"target": "out", "name": "a", "data": ("*.tiff",)})
        message = str(error.value)
        assert message.startswith(
            "--pixel-size (pixel size of the movies, Å) and --voltage (acceleration voltage, kV) are missing"
        )
        assert "beamside.toml" in message

    def test_one_missing_setting_is_said_in_the_singular(self) -> None:
        with pytest.raises(
            ConfigError, match=r"^--name \(name of the session\) is missing: give it on the command line"
        ):
            resolve_session({name: value for name, value in GIVEN.items() if name != "name"})

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("voltage", "20", "--voltage 20: must be 40 to 1000 kV"),
            ("pixel_size", "abc", "--pixel-size abc: must be a number (above 0.05, at most 50 Å)"),
            ("classes", "2.5", "--classes 2.5: must be a whole number (1 to 500)"),
            ("class_box", "63", "--class-box 63: must be 16 to 512, even px"),
            ("mode", "movie", "There is no workflow 'movie'; did you mean 'movies'?"),
            ("particle_diameter", "200:100", "--particle-diameter 200:100: must be MIN:MAX with"),
            ("particle_diameter", "big", "--particle-diameter big: must be"),
            ("name", "../evil", "--name ../evil: must begin with a letter or digit"),
        ],
    )
    def test_an_impossible_value_names_flag_value_and_what_is_allowed(
        self, name: str, value: str, expected: str
    ) -> None:
        assert expected in sentence(**{name: value})

    def test_several_mistakes_are_told_at_once(self) -> None:
        message = sentence(voltage="x", classes="0")
        assert "--voltage x" in message
        assert "--classes 0" in message


class TestProfiles:
    @pytest.fixture(autouse=True)
    def _facility(self, home: Path) -> None:
        (home / "beamside.toml").write_text(FACILITY)
        (home / "frames" / "run1").mkdir(parents=True)

    def test_the_session_is_looked_up_by_name_under_every_root(self, home: Path) -> None:
        resolved = resolve_session({"name": "run1"}, profile="krios.k3")
        assert resolved.settings.acquisition.data == (
            f"{home}/frames/run1/**/*_fractions.tiff",
            f"{home}/averages/run1/**/*_fractions.tiff",
        )
        assert resolved.origins["data"].origin == "beamside.toml [stream.krios.k3] paths, looked up by name"

    def test_a_session_in_a_folder_of_its_group_is_found(self, home: Path) -> None:
        (home / "frames" / "2026" / "lab" / "run7").mkdir(parents=True)
        data = resolve_session({"name": "run7"}, profile="krios.k3").settings.acquisition.data
        assert data[0] == f"{home}/frames/2026/lab/run7/**/*_fractions.tiff"

    def test_data_on_the_command_line_need_no_lookup(self) -> None:
        resolved = resolve_session({"name": "nowhere", "data": ("/x/*.tif",)}, profile="krios.k3")
        assert resolved.settings.acquisition.data == ("/x/*.tif",)

    def test_every_value_says_where_it_comes_from(self, home: Path) -> None:
        origins = resolve_session({"name": "run1", "classes": "70"}, profile="krios.k3").origins
        assert origins["classes"].origin == "command line"
        assert origins["pixel_size"].origin == "beamside.toml [stream.krios.k3]"
        assert origins["voltage"].origin == "beamside.toml [stream.krios]"
        assert origins["target"].origin == "beamside.toml [stream]"
        assert origins["target"].value == str(home / "sessions")
        assert origins["class_tau"].origin == "default"

    def test_a_session_that_is_nowhere_is_answered_with_the_nearest_name(self) -> None:
        with pytest.raises(ConfigError, match=r"no folder 'run2' under .*did you mean 'run1'\?"):
            resolve_session({"name": "run2"}, profile="krios.k3")

    def test_roots_that_are_not_mounted(self, home: Path) -> None:
        (home / "beamside.toml").write_text(FACILITY.replace('"frames", "averages"', '"/nonexistent/a"'))
        with pytest.raises(ConfigError, match="none of the camera's roots exists"):
            resolve_session({"name": "run1"}, profile="krios.k3")

    def test_the_lookup_needs_a_name(self) -> None:
        with pytest.raises(ConfigError, match="--name is missing: the profile finds the data"):
            resolve_session({}, profile="krios.k3")

    def test_a_bad_value_in_the_file_names_file_and_section(self, home: Path) -> None:
        (home / "beamside.toml").write_text(FACILITY.replace("0.83", '"small"'))
        message = (
            r"pixel_size = small \(from beamside.toml \[stream.krios.k3\], the same as --pixel-size\): must be a number"
        )
        with pytest.raises(ConfigError, match=message):
            resolve_session({"name": "run1"}, profile="krios.k3")

    def test_micrographs_have_patterns_of_their_own(self, home: Path) -> None:
        (home / "beamside.toml").write_text(FACILITY.replace('pattern = "*_fractions.tiff"\n', ""))
        data = resolve_session({"name": "run1", "mode": "micrographs"}, profile="krios.k3").settings.acquisition.data
        assert f"{home}/frames/run1/**/*.mrc" in data
        movies = resolve_session({"name": "run1"}, profile="krios.k3").settings.acquisition.data
        assert f"{home}/frames/run1/**/*.tif" in movies
        assert not any(pattern.endswith(".mrc") for pattern in movies)

    def test_without_the_facility_nothing_of_it_is_used(self) -> None:
        with pytest.raises(ConfigError, match="--target"):
            resolve_session({"name": "run1"}, facility=False)


GROUPS = """
[stream.krios.k3]
pixel_size = 0.83

[[stream.krios.k3.optics_group]]
name = "tilted"
when = "file matches *_tilt30_*"
beam_tilt_x = 0.6

[[stream.krios.k3.optics_group]]
name = "fine"
when = "magnification > 150000"
pixel-size = 0.65
"""


class TestOpticsGroups:
    def resolved(self, folder: Path, text: str = GROUPS, **given: Any) -> Any:
        (folder / "groups.toml").write_text(text)
        values = {name: value for name, value in GIVEN.items() if name != "pixel_size"}
        return resolve_session({**values, **given}, profile="krios.k3", config=folder / "groups.toml")

    def test_they_are_tables_of_the_facility_file(self, tmp_path: Path) -> None:
        resolved = self.resolved(tmp_path)
        assert resolved.settings.optics.optics_group == (
            "tilted: file matches *_tilt30_*; beam_tilt_x = 0.6",
            "fine: magnification > 150000; pixel_size = 0.65",
        )
        assert SessionSettings.from_flat(resolved.settings.to_json()).to_json() == resolved.settings.to_json()
        shown = value_text(resolved.origins["optics_group"].value)
        assert shown.startswith("name = tilted, when = file matches *_tilt30_*, beam_tilt_x = 0.6; name = fine")

    def test_those_of_the_command_line_take_their_place(self, tmp_path: Path) -> None:
        resolved = self.resolved(tmp_path, optics_group=("a: width > 5000",))
        assert resolved.settings.optics.optics_group == ("a: width > 5000",)
        assert self.resolved(tmp_path, optics_group=("none",)).settings.optics.optics_group == ()

    @pytest.mark.parametrize(
        ("wrong", "instead", "said"),
        [
            ("when = ", "if = ", "optics_group = .* a group of optics needs 'when', each a text"),
            ("[[stream.krios.k3.optics_group]]", "[stream.krios.k3.optics_group]", "twice|declare|overwrite"),
            ("pixel-size", "pixel", "there is no value 'pixel' of optics; did you mean 'pixel_size'"),
        ],
    )
    def test_mistakes_are_told(self, tmp_path: Path, wrong: str, instead: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            self.resolved(tmp_path, GROUPS.replace(wrong, instead))

    def test_a_section_of_that_name_is_told_how_tables_are_written(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"or \[\[stream.krios.k3.optics_group\]\] for one of several"):
            self.resolved(tmp_path, "[stream.krios.k3.optics_group]\nname = 'a'\n")
