"""The manifest survives crashes, edits and odd names; verification finds what has changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.acquisition.manifest import MANIFEST_PATH, Manifest, ManifestEntry, read_manifest, verify_manifest
from beamside.acquisition.transfer import DestinationError

names = st.text(min_size=1, max_size=30)
entries = st.builds(
    ManifestEntry,
    kind=st.sampled_from(["movie", "sidecar", "removed", "seen"]),
    source=names,
    size=st.integers(0, 2**60),
    mtime_ns=st.integers(-(2**62), 2**62),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    destination=names,
    frames=st.integers(0, 10_000),
    shape=st.sampled_from([(), (4092, 5760)]),
    metadata=st.dictionaries(names, st.one_of(names, st.floats(allow_nan=False))),
    seconds=st.floats(0, 1e6),
)


def entry(name: str, content: bytes, project: Path | None = None, kind: str = "movie") -> ManifestEntry:
    digest = hashlib.sha256(content).hexdigest()
    if project is not None:
        (project / "raw").mkdir(parents=True, exist_ok=True)
        (project / "raw" / name).write_bytes(content)
    return ManifestEntry(kind, f"/camera/{name}", len(content), 7, digest, f"raw/{name}", len(content), digest)  # type: ignore[arg-type]


@given(entries)
def test_every_entry_survives_its_line(one: ManifestEntry) -> None:
    line = one.to_line()
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    assert ManifestEntry.from_line(line) == one


@given(st.lists(entries, min_size=1, max_size=4), st.data())
def test_a_torn_last_line_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, some: list[ManifestEntry], data: st.DataObject
) -> None:
    whole = "".join(one.to_line() for one in some).encode()
    last = len(some[-1].to_line())
    cut = data.draw(st.integers(1, last - 1))
    path = tmp_path_factory.mktemp("m") / "manifest.jsonl"
    path.write_bytes(whole[: len(whole) - cut])
    kept, unreadable = read_manifest(path)
    assert (kept, unreadable) == (some[:-1], [])


@given(st.binary())
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    read_manifest(path)


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), names),
        lambda inner: st.dictionaries(st.sampled_from(["kind", "source", "size", "shape"]), inner),
    )
)
def test_json_of_another_shape_is_not_an_entry(value: object) -> None:
    assert ManifestEntry.from_line(json.dumps(value)) is None


def test_after_a_torn_line_the_next_entry_stands_on_its_own(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.append(entry("a.tiff", b"a"), entry("b.tiff", b"b"))
    path = tmp_path / MANIFEST_PATH
    path.write_bytes(path.read_bytes()[:-10])
    again = Manifest(tmp_path)
    assert [one.destination for one in again.entries] == ["raw/a.tiff"]
    again.append(entry("c.tiff", b"c"))
    assert [one.destination for one in Manifest(tmp_path).entries] == ["raw/a.tiff", "raw/c.tiff"]


def test_a_torn_line_is_gone_for_good_and_verification_does_not_speak_of_it(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.append(entry("a.tiff", b"a", tmp_path), entry("b.tiff", b"b"))
    path = tmp_path / MANIFEST_PATH
    torn = path.read_bytes()[:-10]
    path.write_bytes(torn)
    assert verify_manifest(tmp_path) == [], "also while nobody has mended it"
    Manifest(tmp_path).append(entry("c.tiff", b"c", tmp_path))
    assert verify_manifest(tmp_path) == []
    assert read_manifest(path)[1] == []
    path.write_bytes(torn + b"\n")  # what earlier versions made of it
    (tmp_path / "raw" / "c.tiff").unlink()
    assert verify_manifest(tmp_path) == []


def test_a_list_of_checksums_that_cannot_be_written_does_not_undo_what_was_taken(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    checksums = tmp_path / "checksums.sha256"
    checksums.mkdir()
    manifest.append(entry("a.tiff", b"a"))
    assert [one.destination for one in manifest.entries] == ["raw/a.tiff"]
    checksums.rmdir()
    manifest.append(entry("b.tiff", b"b"))
    assert [line.split()[1] for line in checksums.read_text().splitlines()] == ["raw/a.tiff", "raw/b.tiff"]


def test_entries_carry_their_time_and_come_back_equal(tmp_path: Path) -> None:
    written = Manifest(tmp_path).append(entry("a.tiff", b"a"))
    assert written[0].time.endswith("+00:00")
    assert Manifest(tmp_path).entries == written


def test_an_entry_that_cannot_be_written_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(tmp_path)
    manifest.append(entry("a.tiff", b"a"))
    before = manifest.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(DestinationError, match="is full"):
            manifest.append(entry("b.tiff", b"b"))
    assert manifest.path.read_bytes() == before
    assert len(manifest.entries) == 1


def test_a_part_of_a_line_that_could_not_be_taken_back_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.append(entry("a.tiff", b"a"))
    with manifest.path.open("ab") as file:
        file.write(b'{"kind":"mov')
    manifest.append(entry("b.tiff", b"b"))
    assert [one.destination for one in Manifest(tmp_path).entries] == ["raw/a.tiff", "raw/b.tiff"]
    assert read_manifest(manifest.path)[1] == []


def test_verification_finds_every_kind_of_damage(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for name in ("same", "changed", "longer", "missing"):
        manifest.append(entry(name, name.encode(), tmp_path))
    assert verify_manifest(tmp_path) == []
    (tmp_path / "raw" / "changed").write_bytes(b"CHANGED")
    (tmp_path / "raw" / "longer").write_bytes(b"longer and longer")
    (tmp_path / "raw" / "missing").unlink()
    (tmp_path / "raw" / "foreign").write_bytes(b"x")
    with open(manifest.path, "a") as file:
        file.write('{"kind":"model"}\n')
    problems = verify_manifest(tmp_path)
    assert len(problems) == 5
    for told in (
        "cannot be read",
        "changed has another content",
        "longer has 17 bytes",
        "missing is missing",
        "foreign is not in the manifest",
    ):
        assert any(told in problem for problem in problems), told


def test_a_folder_without_manifest_is_no_success(tmp_path: Path) -> None:
    assert "no manifest" in verify_manifest(tmp_path)[0]


def test_sha256sum_reads_odd_names_and_a_rebuilt_file(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.append(
        *(entry(name, name.encode(), tmp_path) for name in ("plain", "with space", "back\\slash", "new\nline"))
    )
    (tmp_path / "checksums.sha256").write_text("lost in a crash")
    Manifest(tmp_path)
    done = subprocess.run(
        ["sha256sum", "-c", "checksums.sha256"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.count("OK")) == (0, 4), done.stderr
