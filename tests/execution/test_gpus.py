"""Which GPUs are used: made-up lists of them, and what torch and the driver may say."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.execution import gpus
from beamside.execution.gpu_faults import NOT_ENOUGH, gpu_fault
from beamside.execution.gpus import (
    PINS,
    RANK,
    VISIBLE,
    Gpu,
    NoGpuError,
    chosen_gpus,
    find_gpus,
    pinned,
    pins,
    take_device,
)

TWO = (Gpu(0, "RTX A", 24.0, "0"), Gpu(1, "RTX B", 12.0, "GPU-77ab"))


def none() -> tuple[Gpu, ...]:
    raise NoGpuError("this machine shows no NVIDIA GPU")


def test_the_cpu_is_chosen_without_a_look_at_gpus() -> None:
    def never() -> tuple[Gpu, ...]:
        raise AssertionError

    assert chosen_gpus("cpu", never) == ()


@pytest.mark.parametrize(("device", "numbers"), [("auto", [0, 1]), ("cuda", [0, 1]), ("cuda:1", [1])])
def test_the_gpus_that_are_asked_for_are_used(device: str, numbers: list[int]) -> None:
    assert [gpu.number for gpu in chosen_gpus(device, lambda: TWO)] == numbers


def test_auto_without_a_gpu_is_the_cpu() -> None:
    assert chosen_gpus("auto", none) == ()


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_asked_for_and_is_not_there_is_an_error_that_says_what_to_do(device: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {device} cannot be had: this machine shows no.*--device cpu"):
        chosen_gpus(device, none)


def test_a_number_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"--device cuda:2 is not there; this machine has cuda:0 \(RTX A\), cuda:1"):
        chosen_gpus("cuda:2", lambda: TWO)


def test_without_a_sign_of_a_gpu_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_sign_of_gpu", lambda: False)
    monkeypatch.setattr(gpus.subprocess, "run", lambda *_: pytest.fail("asked"))
    with pytest.raises(NoGpuError, match="no NVIDIA GPU"):
        find_gpus()


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A function that sets what the process that is asked prints; with a number, its exit code."""
    monkeypatch.setattr(gpus, "_sign_of_gpu", lambda: True)
    monkeypatch.delenv(VISIBLE, raising=False)

    def answer(text: str, code: int = 0) -> None:
        program = tmp_path / "python"
        out = "1" if code == 0 else "2"
        program.write_text(f"#!/bin/sh\ncat >&{out} <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(gpus.sys, "executable", str(program))

    return answer


def said(count: int, cuda: str = "12.8") -> str:
    found = [{"name": f"card {number}", "memory": 24.0} for number in range(count)]
    return json.dumps({"version": "2.13.0", "cuda": cuda, "gpus": found})


def test_what_torch_finds_is_taken(says: Callable[[str], None]) -> None:
    says(said(2))
    assert find_gpus() == (Gpu(0, "card 0", 24.0, "0"), Gpu(1, "card 1", 24.0, "1"))


def test_gpus_that_a_user_has_chosen_keep_their_names(
    says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    says(said(2))
    monkeypatch.setenv(VISIBLE, "3, GPU-77ab")
    assert [(gpu.device, gpu.token) for gpu in find_gpus()] == [("cuda:0", "3"), ("cuda:1", "GPU-77ab")]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (said(0, cuda=""), 0, "computes on the CPU only"),
        (said(0), 0, "finds no GPU here: see what nvidia-smi says"),
        ("Traceback\nImportError: libcuda", 1, r"could not be asked for GPUs \(ImportError: libcuda\)"),
        ("", 1, "could not be asked for GPUs"),
        ("not JSON", 0, "could not be asked for GPUs"),
        ("[]", 0, "could not be asked for GPUs"),
        ("{}", 0, "could not be asked for GPUs"),
    ],
)
def test_why_no_gpu_can_be_used_is_told(says: Callable[..., None], text: str, code: int, words: str) -> None:
    says(text, code)
    with pytest.raises(NoGpuError, match=words):
        find_gpus()


def test_a_python_that_is_not_there_or_takes_too_long_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpus, "_sign_of_gpu", lambda: True)
    monkeypatch.setattr(gpus.sys, "executable", str(tmp_path / "none"))
    with pytest.raises(NoGpuError, match="FileNotFoundError"):
        find_gpus()

    def slow(*_args: Any, **_more: Any) -> None:
        raise subprocess.TimeoutExpired("python", 180)

    monkeypatch.setattr(gpus.subprocess, "run", slow)
    with pytest.raises(NoGpuError, match="TimeoutExpired"):
        find_gpus()


@pytest.mark.slow
def test_the_question_is_understood_by_the_torch_that_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", gpus.QUESTION], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"version", "cuda", "gpus"}


@given(st.integers(1, 5), st.integers(1, 20))
def test_workers_have_gpus_in_turn(count: int, workers: int) -> None:
    cards = [Gpu(number, "card", 24.0, f"GPU-{number}x") for number in range(count)]
    variable = pins(cards, workers)
    found = [pinned({PINS: variable, RANK: str(rank)}) for rank in range(workers)]
    assert found == [(str(rank % count), f"GPU-{rank % count}x") for rank in range(workers)]


def test_a_worker_sees_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VISIBLE, "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv(PINS, pins(TWO, 4))
    monkeypatch.setenv(RANK, "3")
    assert take_device("cuda") == ("cuda", "cuda:1")
    assert (os.environ[VISIBLE], os.environ["CUDA_DEVICE_ORDER"]) == ("GPU-77ab", "before")
    assert take_device("cpu") == ("cpu", "cpu")


def test_a_worker_without_a_gpu_of_its_own_takes_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PINS, raising=False)
    assert take_device("cuda:1") == ("cuda:1", "cuda:1")


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's own."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), NOT_ENOUGH),
        (OutOfMemoryError("out of memory"), NOT_ENOUGH),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), NOT_ENOUGH),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), NOT_ENOUGH),
        (RuntimeError("CUDA error: out of memory"), NOT_ENOUGH),
        (RuntimeError("No CUDA GPUs are available"), "No CUDA GPUs are available"),
        (RuntimeError("CUDA error: an illegal memory access\nsee"), "CUDA error: an illegal memory access"),
        (RuntimeError("Found no NVIDIA driver on your system."), "Found no NVIDIA driver on your system."),
        (RuntimeError("The size of tensor a (3) must match"), ""),
        (AssertionError("Torch not compiled with CUDA enabled"), "Torch not compiled with CUDA enabled"),
        (RuntimeError(""), ""),
        (ValueError("CUDA error"), ""),
        (MemoryError("out of memory"), ""),
    ],
)
def test_a_fault_of_a_gpu_is_told_from_one_of_the_work(error: Exception, words: str) -> None:
    assert gpu_fault(error) == words
