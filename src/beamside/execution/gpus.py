"""Which GPUs this machine has, which of them are used, and the one that a worker has for itself.

The session never loads torch: that takes a second and a gigabyte, and its process would hold memory on every GPU. So torch is asked in a process of
its own, once when a session begins, and only where there is a sign of a GPU at all. Workers that compute on a GPU see that one only.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamside.errors import ConfigError

log = logging.getLogger(__name__)

ASK_SECONDS = 180.0
"""How long torch may take to say which GPUs there are: a slow file system needs a minute to load it."""

PINS = "BEAMSIDE_GPUS"
"""Variable with what each worker of a pool has, by its rank: "0=GPU-5f1c,1=GPU-77ab"."""
RANK = "PARSL_WORKER_RANK"
VISIBLE = "CUDA_VISIBLE_DEVICES"
IN_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Makes CUDA count GPUs as nvidia-smi does, in the process that asks and in those that use them, unless the user has it otherwise."""

QUESTION = """
import json, torch
count = torch.cuda.device_count() if torch.version.cuda else 0
found = [torch.cuda.get_device_properties(number) for number in range(count)]
gpus = [{"name": one.name, "memory": one.total_memory / 1e9} for one in found]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or "", "gpus": gpus}))
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes
    ----------
    number : as in "cuda:1"
    name : of the product
    memory : GB
    token : what CUDA_VISIBLE_DEVICES calls it
    """

    number: int
    name: str
    memory: float
    token: str

    @property
    def device(self) -> str:
        """What people and torch call it in a process that sees all."""
        return f"cuda:{self.number}"


class NoGpuError(ConfigError):
    """No GPU can be used; the message says why, as a part of a sentence."""


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch can use here, asking it in another process.

    Raises
    ------
    NoGpuError
        There is none; the sentence says why.
    """
    if not _sign_of_gpu():
        raise NoGpuError(
            "this machine shows no NVIDIA GPU (there is neither nvidia-smi nor a device file of its driver)"
        )
    said = _asked()
    if not said["cuda"]:
        raise NoGpuError(
            f"the torch that is installed, {said['version']}, computes on the CPU only: install one with CUDA"
        )
    if not said["gpus"]:
        hidden = f" ({VISIBLE} is {os.environ[VISIBLE]!r})" if VISIBLE in os.environ else ""
        raise NoGpuError(f"torch {said['version']} finds no GPU here{hidden}: see what nvidia-smi says of the driver")
    tokens = visible_tokens(os.environ, len(said["gpus"]))
    return tuple(
        Gpu(number, str(one["name"]), float(one["memory"]), token)
        for number, (one, token) in enumerate(zip(said["gpus"], tokens, strict=True))
    )


def _sign_of_gpu() -> bool:
    return bool(shutil.which("nvidia-smi")) or any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


def _asked() -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", QUESTION]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=ASK_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**IN_ORDER, **os.environ},
        )
        said = json.loads(done.stdout)
        return {"version": str(said["version"]), "cuda": str(said["cuda"]), "gpus": list(said["gpus"])}
    except subprocess.CalledProcessError as error:
        words = [line.strip() for line in str(error.stderr).splitlines() if line.strip()]
        raise NoGpuError(f"torch could not be asked for GPUs ({words[-1] if words else error})") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise NoGpuError(f"torch could not be asked for GPUs ({type(error).__name__}: {error})") from error


def visible_tokens(environment: Mapping[str, str], count: int) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES calls the GPUs that a process sees that has this environment."""
    given = [token.strip() for token in environment.get(VISIBLE, "").split(",") if token.strip()]
    return given[:count] if len(given) >= count else [str(number) for number in range(count)]


def chosen_gpus(device: str, find: Callable[[], Sequence[Gpu]] | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that work is done on, by the setting `device`: "auto", "cpu", "cuda" for all or "cuda:N" for one; none for the CPU.

    Raises
    ------
    ConfigError
        One was asked for, and it is not there.
    """
    if device == "cpu":
        return ()
    try:
        found = tuple((find or find_gpus)())
    except NoGpuError as error:
        if device == "auto":
            log.info("everything is computed on the CPU: %s", error)
            return ()
        raise ConfigError(f"--device {device} cannot be had: {error}. Or use --device cpu, or auto.") from error
    if device in ("auto", "cuda"):
        return found
    chosen = tuple(gpu for gpu in found if gpu.device == device)
    if not chosen:
        there = ", ".join(f"{gpu.device} ({gpu.name})" for gpu in found)
        raise ConfigError(f"--device {device} is not there; this machine has {there}.")
    return chosen


def pins(gpus: Sequence[Gpu], workers: int) -> str:
    """Return which GPU each of so many workers has, in turn, as `pinned` reads it."""
    given = (gpus[rank % len(gpus)] for rank in range(workers))
    return ",".join(f"{gpu.number}={gpu.token}" for gpu in given)


def pinned(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the GPU that the worker of this environment has: (number, what CUDA_VISIBLE_DEVICES calls it); None when it has none."""
    given = [one for one in environment.get(PINS, "").split(",") if one]
    if not given:
        return None
    number, _, token = given[int(environment.get(RANK) or 0) % len(given)].partition("=")
    return number, token


def take_device(asked: str) -> tuple[str, str]:
    """Return what torch calls the device that a task is to be done on in this process, and what people call it.

    A worker that has a GPU for itself sees no other from now on, so it must not have used CUDA before; for torch it is the first one.
    """
    if asked == "cpu":
        return "cpu", "cpu"
    own = pinned(os.environ)
    if own is None:
        return asked, asked
    number, token = own
    os.environ.update({**IN_ORDER, **os.environ, VISIBLE: token})
    return "cuda", f"cuda:{number}"
