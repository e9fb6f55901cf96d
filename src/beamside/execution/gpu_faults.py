"""Faults of a GPU, told from those of the work: the same work can be done on the CPU then."""

from __future__ import annotations

NOT_ENOUGH = "its memory is not enough"
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "NOT_ENOUGH_WORKSPACE")
FAULT_TYPES = (RuntimeError, AssertionError)
FAULTS = ("CUDA", "CUDNN", "CUBLAS", "CUFFT", "CUSOLVER", "NVIDIA", "NVML")
"""Words with which the errors of CUDA and its libraries name themselves."""


def gpu_fault(error: BaseException) -> str:
    """Return what is wrong with the GPU in words: that its memory is not enough, or what else; "" when `error` is not about it.

    Torch raises its own kinds of RuntimeError, and one without CUDA an AssertionError. They are told by their text: this process may not have torch.
    """
    if not isinstance(error, FAULT_TYPES):
        return ""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    about = any(word in text.upper() for word in FAULTS) or type(error).__name__ in (
        "OutOfMemoryError",
        "AcceleratorError",
    )
    if not about:
        return ""
    return NOT_ENOUGH if any(word in text for word in OUT_OF_MEMORY) else first
