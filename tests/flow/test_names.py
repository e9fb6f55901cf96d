"""Any bytes that a file system takes are the name of a movie: it is processed like the others, and nothing on the way dies of it."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest, read_manifest, verify_manifest
from beamside.acquisition.names import LONGEST_NAME, candidate_stems, safe_name
from beamside.acquisition.settings import AcquisitionSettings
from beamside.cli.main import main
from beamside.flow.projection import rebuild
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.formats.printable import printable
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.monitor.report import write_report
from beamside.project.index import Index
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

STRANGE = [
    b"caf\xe9_fractions.tiff",
    "café_fractions.tiff".encode(),
    b"two\nlines_fractions.tiff",
    b"tab\tand blank and \"quotes' #1_fractions.tiff",
    "🔬_fractions.tiff".encode(),
    b"-rf_fractions.tiff",
    b"\x1b[31mred\x07_fractions.tiff",
    "\u202eright to left_fractions.tiff".encode(),
    b"%s {0} $(touch x) `y` \\ <b>&_fractions.tiff",
    b"a b_fractions.tiff",
    b"a_b_fractions.tiff",
    b"x" * 230 + b"_fractions.tiff",
    b"\xff\xfe_fractions.tiff",
]
names_of_files = (
    st.binary(min_size=1, max_size=60)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_").lstrip(b".~"))
    .map(lambda name: name + b"_fractions.tiff")
)


def movie(path: bytes, value: int) -> None:
    content = io.BytesIO()
    tifffile.imwrite(content, np.full((3, 32, 32), value, np.uint8), compression="lzw", photometric="minisblack")
    with open(path, "wb") as file:
        file.write(content.getvalue())


@pytest.mark.usefixtures("light_workflow")
def test_movies_with_any_name_are_processed_and_shown(
    session_settings: Callable[..., SessionSettings], tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path / "camera") + b"/gr\xfcn"
    os.makedirs(folder)
    for number, name in enumerate(STRANGE):
        movie(folder + b"/" + name, number)
    with open(folder + b"/br\xf6ken_fractions.tiff", "wb") as file:
        file.write(b"II*\0 and no more")
    target = tmp_path / os.fsdecode(b"o\xfct \"a\" 'b'\n#")
    settings = session_settings(target=target)
    assert Session(settings, until_empty=True).run() == "finished"
    assert Session(settings, until_empty=True).run() == "finished", "and the next session goes on"

    project = Project(settings.root)
    state = project.load()
    done = [entry for entry in state.jobs["Extract/job003"].items.values() if entry.state is ItemState.DONE]
    assert len(done) == len(STRANGE)
    movies = state.jobs["Import/job001"].items
    sources = [entry.result["values"]["source"] for entry in movies.values() if entry.result]
    assert sorted(map(os.fsencode, sources)) == sorted(folder + b"/" + name for name in STRANGE)
    [failed] = [entry for entry in movies.values() if entry.state is ItemState.FAILED]
    assert failed.name == "raw/br_ken_fractions"
    assert all(name.isascii() and len(name) < 200 and " " not in name for name in movies)

    assert verify_manifest(project.root) == []
    check = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", "checksums.sha256"], check=False, cwd=project.root
    )
    assert check.returncode == 0
    assert write_report(project).read_text(encoding="utf-8")
    for command in (["session", "status"], ["session", "status", "--json"], ["session", "logs"], ["project", "verify"]):
        result = CliRunner().invoke(main, [*command, str(project.root)])
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        assert "\x1b" not in result.output
        assert command[-1] != "status" or "br\\xf6ken" in result.output, "the bytes are told as they are"
    rebuild(project)
    assert len(read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]) == len(STRANGE)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(names_of_files, min_size=1, max_size=3, unique=True))
@example(names=[b"__fractions.tiff", b"*_fractions.tiff"])
def test_a_name_goes_from_the_source_to_every_table_and_back(
    names: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("any")
    camera, project = base / "camera", Project(base / "project")
    camera.mkdir()
    for number, name in enumerate(names):
        movie(os.fsencode(camera) + b"/" + name, number)
    with ProjectWriter(project) as writer:
        writer.create_job("Import/job001", "import", {}, {})
        given_settings = AcquisitionSettings(data=(str(camera / "*_fractions.tiff"),), settle_seconds=0.0, attempts=1)
        intake = Intake(given_settings, project.raw, Manifest(project.root))
        taken = [intake.take(arrival) for _ in range(2) for arrival in intake.look().new]
        found = [file for file in taken if file is not None]
        assert sorted(os.fsencode(Path(file.source).name) for file in found) == sorted(names)
        for file in found:
            for step in (ItemState.WAITING, ItemState.QUEUED):
                writer.item("Import/job001", file.name, step, reason=f"{file.source} came")
            result = {"metrics": {}, "outputs": {"movie": file.path}, "values": {"source": file.source}}
            writer.item("Import/job001", file.name, ItemState.DONE, reason=f"{file.source} is here", result=result)
        assert writer.state == project.load()
    entries, unreadable = read_manifest(project.manifest)
    assert sorted(os.fsencode(Path(entry.source).name) for entry in entries) == sorted(names)
    assert not unreadable
    assert verify_manifest(project.root) == []
    index = Index(project)
    index.catch_up()
    assert {os.fsencode(Path(result["values"]["source"]).name) for _, result in index.results("Import/job001")} == set(
        names
    )
    for item in index.items("Import/job001"):
        assert item["reason"] == printable(item["reason"])
        item["reason"].encode()
    index.close()
    rows = [[file.name, file.path] for file in found]
    write_star(base / "movies.star", [StarBlock("movies", ["rlnMicrographName", "rlnMicrographMovieName"], rows)])
    assert read_star(base / "movies.star")["movies"].rows == rows
    assert all(len(set(os.listdir(project.raw)) - {".incoming"}) == len(names) for _ in names)


@given(st.text(max_size=400))
def test_a_safe_name_is_safe_and_stays_as_it_is(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= LONGEST_NAME
    assert safe.isascii()
    assert not set(safe) & set(" \t\n\"'#/\\;$%")
    assert safe[0] not in ".-"
    assert safe_name(safe) == safe


def test_long_names_that_differ_somewhere_in_the_middle_stay_different() -> None:
    one, other = "FoilHole_" + "1" * 200 + "_Fractions", "FoilHole_" + "1" * 100 + "2" + "1" * 99 + "_Fractions"
    assert safe_name(one) != safe_name(other)
    assert safe_name(one).startswith("FoilHole_")
    assert safe_name(one).endswith("_Fractions")
    stems = candidate_stems(f"/{'y' * 200}/{one}.tiff")
    assert all(len(next(stems)) <= LONGEST_NAME + 3 for _ in range(20))


@given(st.text())
def test_what_is_shown_has_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in shown)
    assert printable(shown) == shown
    assert printable("plain Å text") == "plain Å text"
