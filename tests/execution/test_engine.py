"""The queue to the workers' interchange: never closed while a thread sends, and no thread waits in it for ever."""

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from beamside.execution.engine import GuardedQueue, start_interchange


class Socket:
    """A socket whose other side is there or not; notes what was done in which order."""

    def __init__(self) -> None:
        self.there, self.asked = threading.Event(), threading.Event()
        self.done: list[str] = []
        self.linger = -1

    def send_pyobj(self, message: Any, flags: int) -> None:
        assert flags == zmq.NOBLOCK
        self.asked.set()
        if not self.there.is_set():
            raise zmq.Again
        self.done.append(f"sent {message}")


class Queue:
    def __init__(self) -> None:
        self.zmq_socket = Socket()

    def close(self) -> None:
        self.zmq_socket.done.append("closed")


def test_a_task_is_sent_when_the_other_side_is_there() -> None:
    inner = Queue()
    queue = GuardedQueue(inner)
    sender = threading.Thread(target=queue.put, args=("work",))
    sender.start()
    assert inner.zmq_socket.asked.wait(10)
    assert inner.zmq_socket.done == []
    inner.zmq_socket.there.set()
    sender.join(10)
    queue.close()
    assert inner.zmq_socket.done == ["sent work", "closed"]


def test_a_thread_that_waits_to_send_ends_when_the_other_side_is_given_up() -> None:
    inner, errors = Queue(), []
    queue = GuardedQueue(inner)

    def send() -> None:
        with pytest.raises(RuntimeError, match="closed"):
            queue.put("work")
        errors.append("refused")

    sender = threading.Thread(target=send)
    sender.start()
    assert inner.zmq_socket.asked.wait(10)
    queue.hang_up()
    sender.join(10)
    queue.close()
    queue.close()
    queue.hang_up()
    assert errors == ["refused"]
    assert inner.zmq_socket.linger == 0
    assert inner.zmq_socket.done == ["closed"]


def test_an_interchange_that_dies_while_it_starts_is_not_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    silent = zmq.Context.instance().socket(zmq.PAIR)
    executor = SimpleNamespace(interchange_proc=process, command_client=SimpleNamespace(zmq_socket=silent))
    found: list[int] = []

    def start() -> None:
        found.append(executor.command_client.zmq_socket.poll(timeout=1e9, flags=zmq.POLLIN))

    try:
        start_interchange(executor, start)
    finally:
        silent.close(linger=0)
        process.wait()
    assert found == [0]
    assert executor.command_client.zmq_socket is silent
