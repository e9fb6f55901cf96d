import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import JournalError, ProjectError
from beamside.project.journal import Damage, JournalFile, read_journal

records = st.lists(
    st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4),
    max_size=12,
)


def test_records_come_back_in_order(tmp_path: Path) -> None:
    with JournalFile(tmp_path / "a.jsonl") as journal:
        for number in range(5):
            journal.append({"number": number})
    assert [record["number"] for record, _ in read_journal(tmp_path / "a.jsonl")] == [0, 1, 2, 3, 4]


def test_a_journal_that_does_not_exist_has_no_records(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "none.jsonl")) == []


@settings(max_examples=60, deadline=None)
@given(content=records, cut=st.integers(0, 400))
def test_however_the_file_is_cut_short_only_whole_records_count(
    content: list[dict[str, object]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    with JournalFile(path) as journal:
        for record in content:
            journal.append(record, sync=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = [record for record, _ in read_journal(path)]
    assert kept == content[: len(kept)]
    with JournalFile(path) as journal:
        journal.append({"after": 1}, sync=False)
    assert [record for record, _ in read_journal(path)] == [*kept, {"after": 1}]


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with JournalFile(path) as journal:
        journal.append({"n": 1})
        (_, offset), *_ = list(read_journal(path))
        journal.append({"n": 2})
    assert [record["n"] for record, _ in read_journal(path, offset)] == [2]


def test_a_damaged_line_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"n": 1}) + "\n{broken\n" + json.dumps({"n": 2}) + "\n")
    with pytest.raises(ProjectError, match="damaged at byte 9"):
        list(read_journal(path))
    found: list[Damage] = []
    assert [record["n"] for record, _ in read_journal(path, damaged=found.append)] == [1, 2]
    assert [damage.offset for damage in found] == [9]


@settings(max_examples=60, deadline=None)
@given(record=st.dictionaries(st.text(max_size=8), st.binary(max_size=20).map(os.fsdecode), max_size=4))
def test_names_of_files_come_back_byte_for_byte(
    record: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "a.jsonl"
    with JournalFile(path) as journal:
        journal.append(record, sync=False)
    assert [found for found, _ in read_journal(path)] == [record]


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    journal = JournalFile(path)
    journal.append({"n": 1})
    before = path.read_bytes()
    real_write, calls = __import__("os").write, []

    def write(descriptor: int, data: bytes) -> int:
        if calls:
            raise OSError(28, "No space left on device")
        calls.append(1)
        return real_write(descriptor, data[:4])

    monkeypatch.setattr("beamside.project.journal.os.write", write)
    with pytest.raises(ProjectError, match="No space left on device"):
        journal.append({"n": 2})
    assert path.read_bytes() == before


def test_a_part_of_a_line_that_cannot_be_taken_back_is_taken_back_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    journal = JournalFile(path)
    journal.append({"n": 1})
    with monkeypatch.context() as patched:
        patched.setattr("beamside.project.journal.os.fsync", fails)
        patched.setattr("beamside.project.journal.os.ftruncate", fails)
        with pytest.raises(JournalError, match="Input/output error"):
            journal.append({"n": 2})
    journal.append({"n": 2})
    assert [record["n"] for record, _ in read_journal(path)] == [1, 2]


@pytest.mark.parametrize("call", ["fstat", "write", "fsync"])
def test_whatever_the_system_refuses_is_told_as_a_journal_that_cannot_be_written(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalFile(tmp_path / "a.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr(f"beamside.project.journal.os.{call}", fails)
        with pytest.raises(JournalError, match="Input/output error") as raised:
            journal.append({"n": 1})
    assert getattr(raised.value.__cause__, "errno", 0) == 5


def fails(*_: object) -> int:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("line", "is_record"),
    [
        (b'{"a":"\xc3\xa9"}', True),
        (b'\xef\xbb\xbf{"a":1}', True),
        ('{"a":1}'.encode("utf-16-be"), False),
        (b' {"a":1}', True),
        (b'{"a":"\xff"}', False),
        (b'{"a":1}{', False),
        (b'{"', False),
        (b"\x00\x00", False),
    ],
)
def test_a_line_counts_whenever_json_takes_its_bytes(tmp_path: Path, line: bytes, is_record: bool) -> None:
    path, damage = tmp_path / "odd.jsonl", list[Damage]()
    path.write_bytes(line + b"\n" + b'{"b":2}\n')
    found = [record for record, _ in read_journal(path, damaged=damage.append)]
    assert found == ([json.loads(line)] if is_record else []) + [{"b": 2}]
    assert len(damage) == (not is_record)
