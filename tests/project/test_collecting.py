"""No search for unreachable objects while much is read, and none among it afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from beamside.project.collecting import without_searches


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_read_is_not_searched_any_more() -> None:
    for many, searched in ((500, False), (5000, True)):
        with without_searches(many):
            assert not gc.isenabled()
            read = [[number] for number in range(1000)]
        assert gc.isenabled()
        assert any(one is read[0] for one in gc.get_objects()) == searched


def test_searches_go_on_after_an_error_and_stay_off_where_they_were_off() -> None:
    with pytest.raises(ValueError, match="bad"), without_searches():
        raise ValueError("bad")
    assert gc.isenabled()
    gc.disable()
    with without_searches():
        pass
    assert not gc.isenabled()
