"""The story of an item, for the message of a mistake."""

from __future__ import annotations

import json
from pathlib import Path

from beamside.project.story import SHOWN, item_story


def test_the_newest_states_are_told_with_attempt_and_reason(tmp_path: Path) -> None:
    journal = tmp_path / "job.jsonl"
    records = [{"item": "a", "state": "waiting", "time": 0.0}, {"item": "b", "state": "queued", "time": 0.0}]
    where = {"host": "node1", "pid": 7, "device": "cuda:0"}
    records += [{"item": "a", "state": "failed", "attempt": 2, "task": 3, "where": where, "reason": "it is bad"}]
    journal.write_text("".join(json.dumps(record) + "\n" for record in records) + "odd\n", encoding="utf-8")
    story = item_story(journal, "a")
    assert story.startswith("Its journal says: waiting (")
    assert story.endswith(", failed (attempt 2; task 3; node1, 7, cuda:0; it is bad).")
    assert "queued" not in story


def test_of_very_many_states_the_newest_are_told(tmp_path: Path) -> None:
    journal = tmp_path / "job.jsonl"
    journal.write_text("".join(json.dumps({"item": "a", "state": f"s{number}"}) + "\n" for number in range(20)))
    assert (
        item_story(journal, "a") == f"Its journal says: ..., {', '.join(f's{20 - SHOWN + n}' for n in range(SHOWN))}."
    )


def test_an_item_without_records_has_no_story(tmp_path: Path) -> None:
    assert item_story(tmp_path / "none.jsonl", "a") == "Its journal says nothing of it."
