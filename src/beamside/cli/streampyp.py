"""``streampyp``: takes the command line of nextPYP's streampyp, says for each option what it became, and starts the same session."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence

import click

from beamside.cli.root import in_sentences
from beamside.cli.streampyp_translation import DIRECT, NUMBER, SWITCHES, own_flags, translate
from beamside.errors import ConfigError

_OPTION = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)

USAGE = """Usage: streampyp -scope_pixel A -scope_voltage KV -data_path 'PATTERN' -stream_transfer_target DIRECTORY ...

Takes the options of nextPYP's streampyp for sessions of single particles, says for each what it became, and starts the same
session with Beamside. It returns at once; the session goes on in the background.

  --flag value, -flag value and -flag=value mean the same. Options of 'beamside session start' (--dose, --foreground,
  --config, ...) may be mixed in.

Options that are taken over: {options}.
"""


def parse(arguments: Sequence[str], switches: Iterable[str] = SWITCHES) -> dict[str, str | None]:
    """Return values by option name, without dashes; None for options that were given without a value.

    ``--flag value``, ``-flag=value``, ``-flag value`` and the other mixtures mean the same; of options given twice the last counts.

    Raises
    ------
    ConfigError
        for words that belong to no option
    """
    options: dict[str, str | None] = {}
    open_option = ""
    valueless = frozenset(switches)
    for word in arguments:
        match = None if NUMBER.fullmatch(word) else _OPTION.fullmatch(word)
        if match:
            open_option, value = match.group(1).replace("-", "_"), match.group(2)
            options[open_option] = value
            if value is not None:
                open_option = ""
        elif open_option and (open_option not in valueless or word.lower() in ("true", "false")):
            options[open_option], open_option = word, ""
        else:
            raise ConfigError(
                f"{word!r} belongs to no option: put patterns of file names into quotes, so that the shell leaves them as they are"
            )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``streampyp`` command; ends the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[-1] in ("-h", "-help", "--help"):
        click.echo(USAGE.format(options=", ".join(sorted(f"-{name}" for name in DIRECT))))
        sys.exit(0)
    debug = "--debug" in words
    sys.exit(in_sentences(lambda: _start([word for word in words if word != "--debug"]), debug=debug))


def _start(words: Sequence[str]) -> None:
    from beamside.cli.session import start

    valueless = {flag.removeprefix("--").replace("-", "_") for flag, switch in own_flags().items() if switch}
    translation = translate(parse(words, SWITCHES | valueless))
    for line in translation.lines:
        click.echo(f"streampyp: {line}")
    click.echo(f"The same session: {shlex.join(['beamside', 'session', 'start', *translation.arguments])}")
    start.main(translation.arguments, prog_name="beamside session start", standalone_mode=False)
