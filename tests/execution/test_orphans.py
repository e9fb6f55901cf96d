"""A worker on another host knows its session by the lease."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.execution import orphans
from beamside.execution.orphans import STALE_SECONDS, LeaseWatch, session_mark
from beamside.project.lease import Lease


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lease(tmp_path: Path) -> Path:
    path = tmp_path / "lease"
    path.write_text("ours")
    return path


def beat(path: Path, seconds: int) -> None:
    os.utime(path, ns=(seconds, seconds))


def test_a_lease_that_is_set_anew_holds_however_long_it_lasts_and_whatever_its_time(lease: Path) -> None:
    clock = Clock()
    watch = LeaseWatch(lease, "ours", clock)
    for moment in (5, 4, 10**18, 3):  # the session's clock may be wrong, or step back
        beat(lease, moment)
        assert watch.holds()
        clock.now += STALE_SECONDS - 1


@pytest.mark.parametrize("left", ["ours", "", None], ids=["killed", "given back", "gone"])
def test_a_lease_without_a_sign_of_life_holds_until_it_is_stale(lease: Path, left: str | None) -> None:
    clock = Clock()
    watch = LeaseWatch(lease, "ours", clock)
    assert watch.holds()
    if left is None:
        lease.unlink()
    elif left != "ours":
        lease.write_text(left)
    clock.now += STALE_SECONDS - 1
    assert watch.holds()
    clock.now += 1
    assert not watch.holds()


def test_a_fault_of_the_network_that_passes_ends_nothing(lease: Path) -> None:
    clock = Clock()
    watch = LeaseWatch(lease, "ours", clock)
    assert watch.holds()
    moved = lease.rename(lease.with_name("away"))
    clock.now += STALE_SECONDS - 1
    assert watch.holds()
    moved.rename(lease)
    assert watch.holds()
    clock.now += STALE_SECONDS - 1
    assert watch.holds()


def test_a_lease_of_another_session_is_believed_when_it_is_seen_twice(lease: Path) -> None:
    watch = LeaseWatch(lease, "ours", Clock())
    assert watch.holds()
    lease.write_text("theirs")
    assert [watch.holds(), watch.holds()] == [True, False]


@given(written=st.binary(max_size=40))
def test_whatever_is_in_the_file_one_look_ends_nothing(
    tmp_path_factory: pytest.TempPathFactory, written: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-lease"
    path.write_bytes(written)
    assert LeaseWatch(path, "ours", Clock()).holds()


@pytest.mark.parametrize(
    ("host", "by"), [("another-host", "lease"), (socket.gethostname(), "process"), ("", "process")]
)
def test_only_on_another_host_the_lease_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, by: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(orphans, "_watched", set())
    monkeypatch.setattr(LeaseWatch, "holds", lambda _self: asked.append("lease") or True)
    monkeypatch.setattr(orphans, "_is_there", lambda *_: asked.append("process") or True)
    monkeypatch.setattr(orphans.threading.Thread, "start", lambda _self: None)
    orphans.end_with_session(os.getppid(), 1.0, host, str(tmp_path / "lease"), "ours")
    assert asked == [by]


def test_the_mark_of_a_session_holds_while_it_has_the_lease(tmp_path: Path) -> None:
    path = tmp_path / "private" / "writer.lock"
    held = Lease(path)
    pid, _, host, name, content = session_mark(path)
    assert (pid, host, name) == (os.getpid(), socket.gethostname(), str(path))
    clock = Clock()
    watch = LeaseWatch(path, content, clock)
    assert watch.holds()
    beat(path, 1)
    clock.now += STALE_SECONDS - 1
    assert watch.holds()
    held.beat()
    clock.now += STALE_SECONDS - 1
    assert watch.holds()
    held.release()
    held.beat()
    again = Lease(path)
    assert [watch.holds(), watch.holds()] == [True, False]
    again.release()
