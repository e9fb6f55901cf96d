from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.config import Facility, Setting, Vocabulary, find_facility_file, load_facility, nearest, resolve
from beamside.errors import ConfigError

VOCABULARY = Vocabulary(
    {name: name for name in ("target", "group", "voltage", "pixel_size", "gain", "gain_flip", "patches")}
    | {"cs": "spherical_aberration", "spherical_aberration": "spherical_aberration"},
    frozenset({"target", "gain"}),
)

EXAMPLE = """
[stream]
target = "/data/sessions"
voltage = 200

[stream.krios]
voltage = 300
cs = 2.7

[stream.krios.k3]
paths = ["/mnt/k3/frames", "averages"]
pixel_size = 1.08
gain = "gains/k3.mrc"

[stream.krios.falcon]
pixel_size = 0.82

[stream.glacios]
group = "students"
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the configuration of the person who runs it."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("BEAMSIDE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(tmp_path: Path, text: str) -> Facility:
    return load_facility(VOCABULARY, write(tmp_path / "site" / "beamside.toml", text))


class TestReading:
    def test_files_of_editors_of_windows_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "beamside.toml"
        path.write_bytes("\ufeff[stream]\r\nvoltage = 300\r\n".encode())
        assert load_facility(VOCABULARY, path).profile()["voltage"].value == 300
        path.write_bytes("[stream]\nvoltage = 300\n".encode("utf-16"))
        with pytest.raises(ConfigError, match="save it as UTF-8"):
            load_facility(VOCABULARY, path)


class TestFinding:
    def test_without_any_file_there_is_an_empty_facility(self) -> None:
        facility = load_facility(VOCABULARY)
        assert facility.path is None
        assert facility.profile() == {}

    def test_the_explicit_file_goes_before_environment_directory_and_home(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = write(tmp_path / "xdg" / "beamside" / "beamside.toml", "")
        assert find_facility_file() == home
        here = write(tmp_path / "cwd" / "beamside.toml", "")
        assert find_facility_file() == here
        environment = write(tmp_path / "env.toml", "")
        monkeypatch.setenv("BEAMSIDE_CONFIG", str(environment))
        assert find_facility_file() == environment
        explicit = write(tmp_path / "explicit.toml", "")
        assert find_facility_file(explicit) == explicit

    def test_a_file_asked_for_must_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigError, match=r"nowhere\.toml \(--config\) does not exist"):
            load_facility(VOCABULARY, "nowhere.toml")
        monkeypatch.setenv("BEAMSIDE_CONFIG", "gone.toml")
        with pytest.raises(ConfigError, match=r"gone\.toml \(\$BEAMSIDE_CONFIG\) does not exist"):
            load_facility(VOCABULARY)

    def test_a_directory_is_answered_with_the_file_in_it(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"is a directory: give a file"):
            load_facility(VOCABULARY, tmp_path)
        inside = write(tmp_path / "beamside.toml", "")
        with pytest.raises(ConfigError, match=rf"is a directory: give the file, {inside}"):
            load_facility(VOCABULARY, tmp_path)

    def test_an_account_without_a_home_has_no_file_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does when there is no home
        assert find_facility_file() is None
        with pytest.raises(ConfigError, match=r"home directory in ~/mine.toml is not known"):
            find_facility_file("~/mine.toml")


class TestProfiles:
    def test_camera_goes_over_microscope_over_stream(self, tmp_path: Path) -> None:
        settings = load(tmp_path, EXAMPLE).profile("krios.k3")
        assert settings["voltage"] == Setting(300, "beamside.toml [stream.krios]")
        assert settings["target"] == Setting("/data/sessions", "beamside.toml [stream]")
        assert settings["pixel_size"] == Setting(1.08, "beamside.toml [stream.krios.k3]")
        assert settings["spherical_aberration"].value == 2.7

    def test_without_a_profile_the_stream_section_still_counts(self, tmp_path: Path) -> None:
        assert set(load(tmp_path, EXAMPLE).profile()) == {"target", "voltage"}

    def test_a_microscope_alone_is_a_profile(self, tmp_path: Path) -> None:
        assert load(tmp_path, EXAMPLE).profile("glacios")["group"].value == "students"

    def test_any_number_of_sections(self, tmp_path: Path) -> None:
        text = "".join(f"[stream.m{i}.c{j}]\npixel_size = {i}.{j}\n" for i in range(5) for j in range(4))
        facility = load(tmp_path, text)
        assert len(facility.profiles()) == 5 + 20
        assert facility.profile("m3.c2")["pixel_size"].value == 3.2

    def test_relative_paths_are_taken_from_the_file(self, tmp_path: Path) -> None:
        settings = load(tmp_path, EXAMPLE).profile("krios.k3")
        assert settings["gain"].value == str(tmp_path / "site" / "gains" / "k3.mrc")
        assert settings["paths"].value == ("/mnt/k3/frames", str(tmp_path / "site" / "averages"))

    def test_one_root_needs_no_list(self, tmp_path: Path) -> None:
        assert load(tmp_path, '[stream.a.b]\npaths = "/mnt"\n').profile("a.b")["paths"].value == ("/mnt",)

    def test_an_unknown_profile_names_the_known(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no profile 'krios\.k2'; did you mean 'krios\.k3'\?.*krios\.falcon"):
            load(tmp_path, EXAMPLE).profile("krios.k2")

    def test_a_profile_without_a_file_says_how_to_get_one(self) -> None:
        with pytest.raises(ConfigError, match="beamside init"):
            load_facility(VOCABULARY).profile("krios.k3")


class TestMistakes:
    @pytest.mark.parametrize(
        ("key", "meant"),
        [("voltag", "voltage"), ("pixelsize", "pixel_size"), ("pixel", "pixel_size"), ("path", "paths"), ("CS", "cs")],
    )
    def test_an_unknown_key_names_file_section_and_the_nearest_name(self, tmp_path: Path, key: str, meant: str) -> None:
        with pytest.raises(ConfigError) as error:
            load(tmp_path, f"[stream.krios]\n{key} = 1\n")
        message = str(error.value)
        assert f"unknown key {key!r}" in message
        assert f"did you mean {meant!r}?" in message
        assert "site/beamside.toml [stream.krios]" in message

    def test_a_key_like_nothing_points_to_the_list(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--help-all"):
            load(tmp_path, "[stream]\nxyzzy = 1\n")

    def test_an_unknown_section_names_the_right_one(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"unknown section 'streams' at the top.*did you mean 'stream'\?"):
            load(tmp_path, "[streams.krios]\nvoltage = 300\n")

    def test_sections_that_are_too_deep(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no deeper"):
            load(tmp_path, "[stream.a.b.c]\nvoltage = 300\n")

    def test_a_setting_written_as_a_section(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="'voltage' is a setting"):
            load(tmp_path, "[stream.voltage]\n")

    def test_the_same_setting_twice(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="same setting"):
            load(tmp_path, "[stream]\ncs = 2.7\nspherical_aberration = 2.7\n")

    def test_invalid_toml_says_where(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"not valid TOML.*line 2"):
            load(tmp_path, "[stream]\nvoltage = \n")

    def test_stream_that_is_not_a_section(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="must be a section"):
            load(tmp_path, "stream = 3\n")

    @pytest.mark.parametrize("value", ["3", "[]", '["a", 1]'])
    def test_paths_of_the_wrong_type(self, tmp_path: Path, value: str) -> None:
        with pytest.raises(ConfigError, match="paths must be text or a list"):
            load(tmp_path, f"[stream.a.b]\npaths = {value}\n")


class TestPrecedence:
    PROFILE = {"voltage": Setting(300, "beamside.toml [stream.krios]")}

    def test_command_line_over_profile_over_defaults(self) -> None:
        defaults = {"voltage": 200, "patches": 5, "group": ""}
        settings = resolve({"voltage": None, "group": "lab"}, self.PROFILE, defaults)
        assert settings["voltage"] == Setting(300, "beamside.toml [stream.krios]")
        assert settings["patches"] == Setting(5, "default")
        assert settings["group"] == Setting("lab", "command line")
        assert resolve({"voltage": 120}, self.PROFILE, defaults)["voltage"] == Setting(120, "command line")

    def test_a_false_value_on_the_command_line_counts(self) -> None:
        assert resolve({"voltage": 0}, self.PROFILE, {})["voltage"] == Setting(0, "command line")


@pytest.mark.parametrize(
    ("name", "says"), [('"krios.k3"', "has a dot"), ('""', "is empty"), ('krios."k3.old"', "has a dot")]
)
def test_a_section_that_could_be_taken_for_another_is_refused(tmp_path: Path, name: str, says: str) -> None:
    text = f"[stream.krios.k3]\nvoltage = 300\n\n[stream.{name}]\nvoltage = 200\n"
    with pytest.raises(ConfigError, match=f"{says}: give it another name"):
        load(tmp_path, text)


values = st.dictionaries(
    st.sampled_from(["voltage", "pixel-size", "pixel_size", "cs", "patches"]), st.integers(0, 9), max_size=3
)


@given(values, values, values, values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_each_section_adds_to_the_one_around_it_and_says_where_a_value_is_from(
    tmp_path: Path, stream: dict[str, int], scope: dict[str, int], camera: dict[str, int], other: dict[str, int]
) -> None:
    parts = {"stream": stream, "stream.krios": scope, "stream.krios.k3": camera, "stream.glacios": other}
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in given.items())
        for section, given in parts.items()
    )
    if any({"pixel-size", "pixel_size"} <= given.keys() for given in parts.values()):
        with pytest.raises(ConfigError, match="are the same setting: keep one of them"):
            load(tmp_path, text)
        return
    facility = load(tmp_path, text)
    assert facility.profiles() == ["krios", "krios.k3", "glacios"]
    names = {"pixel-size": "pixel_size", "cs": "spherical_aberration"}
    for profile, line in (("", 1), ("krios", 2), ("krios.k3", 3)):
        wanted: dict[str, Setting] = {}
        for section in list(parts)[:line]:
            wanted |= {
                names.get(key, key): Setting(value, f"beamside.toml [{section}]")
                for key, value in parts[section].items()
            }
        assert facility.profile(profile) == wanted
        found = resolve({"voltage": None, "patches": 7}, facility.profile(profile), {"voltage": 100, "group": "a"})
        assert found["patches"] == Setting(7, "command line")
        assert found["voltage"] == wanted.get("voltage", Setting(100, "default"))
        assert found["group"] == Setting("a", "default")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"[stream]\n{text}".encode("utf-8", "replace")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_whatever_a_file_holds_it_is_read_or_its_fault_is_told_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "beamside.toml"
    path.write_bytes(content)
    told = ""
    try:
        found = set(load_facility(VOCABULARY, path).profile())
    except ConfigError as error:
        found, told = set(), str(error)
    assert not told or str(path) in told
    assert found <= {*VOCABULARY.names.values(), "paths", "pattern"}


@given(st.text(max_size=20), st.lists(st.text(max_size=20)))
def test_nearest_answers_with_a_known_name_or_nothing(name: str, known: list[str]) -> None:
    match = nearest(name, known)
    assert match == "" or match in known
