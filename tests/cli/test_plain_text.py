"""Whatever a terminal can show, printing never ends a command."""

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.cli.plain_text import never_fail

ENCODINGS = ["ascii", "latin-1", "utf-8"]


def printed(text: str, encoding: str) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    never_fail(stream)
    stream.write(text)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "4 Å · 1 e/Å² – ≥ 3 µm"),
        ("latin-1", "4 Å · 1 e/Å² - >= 3 µm"),
        ("ascii", "4 A . 1 e/A^2 - >= 3 um"),
    ],
)
def test_units_stay_readable(encoding: str, shown: str) -> None:
    assert printed("4 Å · 1 e/Å² – ≥ 3 µm", encoding) == shown


def test_a_name_that_is_not_utf8_is_shown_by_its_bytes() -> None:
    name = os.fsdecode(b"caf\xe9_Fractions.tiff")
    for encoding in ENCODINGS:
        assert printed(name, encoding) == r"caf\xe9_Fractions.tiff"


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_can_be_printed(text: str) -> None:
    for encoding in ENCODINGS:
        printed(text, encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_settings_table_is_shown_in_such_a_terminal(encoding: str) -> None:
    words = ["session", "start", "--show", "--target", "out", "--name", "Ω", "--data", "x/*.tif", "--pixel-size", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "beamside.cli.main", *words, "--voltage", "300"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "e/A^2" in ended.stdout.decode(encoding).replace("Å²", "A^2")
