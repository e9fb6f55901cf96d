"""What is said of errors is a sentence for people."""

from __future__ import annotations

import errno
import os

import pytest

from beamside.errors import InputError, in_words


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("It is damaged."), "It is damaged."),
        (ValueError("odd"), "ValueError: odd"),
        (OSError("no room"), "OSError: no room"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/d/x"), "the disk is full: make room (/d/x)"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the quota on the disk is used up: make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/d/x"), "Permission denied (/d/x)"),
    ],
)
def test_an_error_in_words(error: Exception, said: str) -> None:
    assert in_words(error) == said
