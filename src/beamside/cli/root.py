"""How every command ends: errors become one sentence on stderr and an exit code, never a traceback (unless ``--debug`` asks for it)."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from pydantic import ValidationError

from beamside.cli.plain_text import never_fail
from beamside.config import nearest
from beamside.errors import BeamsideError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
WORDS = "beamside.words"
"""Where a command's context keeps the words of the command line."""


def in_sentences(action: Callable[[], Any], *, debug: bool = False) -> int:
    """Run `action` and return the exit code of the process.

    Errors that a user can do something about are printed as one sentence with exit code 2; Ctrl-C gives 130. What is left is a mistake of the
    program, whose traceback belongs into a bug report.
    """
    never_fail()
    try:
        result = action()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as no_command:
        click.echo(no_command.format_message(), err=True)
        return EXIT_ERROR
    except BrokenPipeError:
        # the reader ("| head") has gone; nothing more can be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort, EOFError):
        sentence, code, trace = "interrupted", EXIT_INTERRUPTED, traceback.format_exc()
    except (BeamsideError, OSError, ValidationError, click.ClickException) as error:
        sentence, code, trace = error_sentence(error), EXIT_ERROR, traceback.format_exc()
    if debug:
        click.echo(trace, err=True)
    click.echo(f"beamside: {' '.join(sentence.split())}", err=True)
    return code


def error_sentence(error: Exception) -> str:
    """Return one sentence for an error that a user can do something about."""
    if isinstance(error, click.ClickException):
        return usage_sentence(error)
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def usage_sentence(error: click.ClickException) -> str:
    """Return one sentence for a mistake on the command line, with the nearest right name."""
    ctx = getattr(error, "ctx", None)
    help_hint = f"see {ctx.command_path} --help" if ctx is not None else "see --help"
    if isinstance(error, click.NoSuchOption):
        flags = list(_long_flags(ctx)) if ctx is not None else list(error.possibilities or [])
        same = [flag for flag in flags if flag.endswith(f".{error.option_name.removeprefix('--')}")]
        if len(same) > 1:
            return f"several jobs have an option {error.option_name}: write {' or '.join(same)}"
        near = nearest(error.option_name, flags)
        return f"unknown option {error.option_name}; {f'did you mean {near}?' if near else help_hint}"
    message = error.format_message().rstrip(".")
    switch = _switch_given_a_value(error, message)
    if switch:
        return switch
    if message.startswith("No such command") and ctx is not None and isinstance(ctx.command, click.Group):
        wanted = message.split("'")[1]
        near = nearest(wanted, ctx.command.list_commands(ctx))
        return f"unknown command {wanted!r}; {f'did you mean {near!r}?' if near else help_hint}"
    takes_patterns = ctx is not None and any(parameter.name == "data" for parameter in ctx.command.params)
    if message.startswith("Got unexpected extra argument") and takes_patterns:
        return f"{message[0].lower()}{message[1:]}: put patterns of file names into quotes, so that the shell leaves them as they are"
    return f"{message[0].lower()}{message[1:]}; {help_hint}" if isinstance(error, click.UsageError) else message


def _switch_given_a_value(error: click.ClickException, message: str) -> str:
    """Return how a switch is written when `error` is that one was given a value, as ``--check no`` or ``--check=no``; else ""."""
    ctx = getattr(error, "ctx", None)
    refused = (
        error.option_name if isinstance(error, click.BadOptionUsage) and "does not take a value" in message else ""
    )
    if ctx is None:
        return _switch_sentence(refused) if refused else ""
    switches = {
        flag: parameter
        for parameter in ctx.command.get_params(ctx)
        if isinstance(parameter, click.Option) and parameter.is_flag
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    flag = refused
    if message.startswith("Got unexpected extra argument"):
        words = ctx.meta.get(WORDS, [])
        extra = message.partition("(")[2].rstrip(")").split(" ")[0]
        before = (first for first, second in itertools.pairwise(words) if second == extra and first in switches)
        flag = next(before, "")
    if not flag:
        return ""
    return _switch_sentence(flag, switches[flag].opts[-1], next(iter(switches[flag].secondary_opts), ""))


def _switch_sentence(flag: str, on: str = "", off: str = "") -> str:
    return (
        f"{flag} is a switch and takes no value: write {f'{on} or {off}' if off else f'{on or flag}, or leave it out'}"
    )


def _long_flags(ctx: click.Context) -> Iterator[str]:
    """Yield the long options of a command; which there are may depend on the words that were given."""
    for parameter in ctx.command.get_params(ctx):
        yield from (flag for flag in (*parameter.opts, *parameter.secondary_opts) if flag.startswith("--"))


class SentenceGroup(click.Group):
    """The top of a command line whose errors are sentences; ``--debug`` is understood anywhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they were typed, for sentences about them."""
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any) -> Any:  # type: ignore[override]
        """Run, print errors as sentences, and exit."""
        words = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in words or bool(os.environ.get("BEAMSIDE_DEBUG"))
        words = [word for word in words if word != "--debug"]
        standalone = options.pop("standalone_mode", True)
        run = functools.partial(super().main, words, prog_name, standalone_mode=False, **options)
        if not standalone:
            return run()
        sys.exit(in_sentences(run, debug=debug))
