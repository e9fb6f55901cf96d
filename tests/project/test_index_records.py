"""The index says the same however many records it takes in at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.project import index_records
from beamside.project.index_file import MEMORY, connect
from beamside.project.index_records import ItemRecords
from beamside.project.records import STATES

RECORDS = st.fixed_dictionaries(
    {
        "time": st.integers(1, 10_000).map(float),
        "item": st.sampled_from("abcd"),
        "state": st.sampled_from(sorted(STATES)),
    },
    optional={
        "attempt": st.integers(0, 3),
        "reason": st.text(max_size=3),
        "seconds": st.just(2.5),
        "where": st.sampled_from([{"device": "cuda:0"}, {"device": "cpu"}, {}, "odd", None, {"device": 5}]),
        "result": st.sampled_from([{"metrics": {"x": 1.0, "y": 2.0}}, {"metrics": {"x": 3.0}}, {}]),
    },
)


def tables(records: list[dict[str, Any]], at_once: int) -> Iterator[Any]:
    with closing(connect(MEMORY)) as connection:
        for start in range(0, len(records), at_once):
            taking = ItemRecords(connection, "job")
            for offset, record in enumerate(records[start : start + at_once], start=start + 1):
                yield taking.take(record, offset)
            taking.write()
        yield from (
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in ("item", "metric")
        )
        yield connection.execute("SELECT * FROM passage ORDER BY rowid").fetchall()


@given(st.lists(RECORDS, max_size=20), st.integers(1, 7))
@settings(deadline=None, max_examples=80)
def test_records_can_come_one_by_one_or_together(records: list[dict[str, Any]], at_once: int) -> None:
    one_by_one = list(tables(records, 1))
    assert list(tables(records, at_once)) == one_by_one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_records, "_TOGETHER", 2)
        assert list(tables(records, len(records) or 1)) == one_by_one


def test_an_item_keeps_what_later_records_do_not_say() -> None:
    said = [
        {"item": "a", "state": "waiting", "time": 1.0},
        {"item": "a", "state": "queued", "time": 2.0, "attempt": 2},
        {"item": "a", "state": "done", "time": 3.0, "seconds": 4.0, "result": {"metrics": {"m": 5.0}}}
        | {"where": {"host": "node1", "pid": 7, "device": "cuda:0"}},
        {"item": "a", "state": "waiting", "time": 6.0, "attempt": 0, "reason": "inputs changed"},
    ]
    *sound, items, metrics, passages = tables(said, 4)
    assert sound == [True] * 4
    assert items == [
        ("job", "a", "waiting", 2, "inputs changed", 1.0, 6.0, 4.0, "cuda:0", '{"metrics": {"m": 5.0}}', 1, 4)
    ]
    assert metrics == [("job", "a", "m", 5.0)]
    assert [(state, again) for _, _, _, state, again in passages] == [("waiting", 0), ("done", 0), ("waiting", 1)]


@pytest.mark.parametrize("odd", [{"time": None}, {"state": "lost"}, {"item": 3}, {"attempt": "x"}, {"result": 5}])
def test_nothing_is_kept_of_a_record_that_cannot_be_understood(odd: dict[str, Any]) -> None:
    with closing(connect(MEMORY)) as connection:
        taking = ItemRecords(connection, "job")
        with pytest.raises((KeyError, TypeError, ValueError)):
            taking.take({"item": "a", "state": "done", "time": 1.0, **odd}, 1)
        taking.write()
        assert connection.execute("SELECT count(*) FROM item").fetchone() == (0,)
