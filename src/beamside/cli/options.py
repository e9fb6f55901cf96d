"""Options of ``session start``, made from the declared parameters: flags, types, ranges, units and help texts are written only there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic_core import PydanticUndefined

from beamside.config import Vocabulary, load_facility
from beamside.errors import ConfigError
from beamside.flow.settings import FIXED, Section, all_parameters, sections
from beamside.flow.workflow import SHIPPED, STANDARD, Workflow, find_workflow
from beamside.jobs.registry import job_types
from beamside.parameters import ParameterInfo, describe

METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
PATH_NAMES = frozenset({"target", "data", "gain", "defects"})
"""Parameters whose values are paths; in a facility file, relative ones are taken from its directory."""


@dataclass(frozen=True)
class Declared:
    """One parameter with the section that it belongs to."""

    section: Section
    info: ParameterInfo

    @property
    def is_switch(self) -> bool:
        """True for yes/no parameters."""
        return self.info.field.annotation is bool

    @property
    def is_list(self) -> bool:
        """True for parameters that may be given several times."""
        annotation = self.info.field.annotation
        return get_origin(annotation) in (tuple, list) and Ellipsis in get_args(annotation)

    @property
    def required(self) -> bool:
        """True when there is no default."""
        return self.info.field.is_required()

    @property
    def off_flag(self) -> str:
        """The flag that switches a yes/no parameter off: "--no-compress"."""
        label, dot, flag = self.info.flag.removeprefix("--").rpartition(".")
        return f"--{label}{dot}no-{flag}"


def declared_parameters(workflow: Workflow | None = None) -> dict[str, Declared]:
    """Return every parameter of a session by name, in the order of the sections; without a workflow, those of the standard one."""
    return {info.name: Declared(section, info) for section, info in all_parameters(workflow)}


def vocabulary(workflow: Workflow | None = None) -> Vocabulary:
    """Return the keys of ``beamside.toml``: each parameter's name, and its flag's when that differs.

    The file holds for sessions of any workflow, so parameters of all job types may stand there, also those that `workflow` does not have.
    """
    infos = [declared.info for declared in declared_parameters(workflow).values()]
    infos += [info for kind in job_types().values() for info in describe(kind.Parameters)]
    names: dict[str, str] = {"mode": "workflow"}
    for info in infos:
        names[info.name] = info.name
        names.setdefault(info.flag.removeprefix("--").replace("-", "_"), info.name)
    of_jobs = {name for kind in job_types().values() for name in kind.Parameters.model_fields}
    return Vocabulary(names, PATH_NAMES, frozenset(of_jobs))


def destination(name: str) -> str:
    """Return the name under which click gives the value of a parameter: "pick.box" is no name in Python."""
    return name.replace(".", "__")


def by_parameter(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that click gives by the names of their parameters."""
    return {name.replace("__", "."): value for name, value in given.items()}


def click_options(workflow: Workflow | None = None) -> list[click.Option]:
    """Return one click option for each parameter; none has a default, so that what was given can be told from what was not.

    Values stay text: the models validate them, so that the same sentence is said wherever a value came from.
    """
    return [_click_option(declared) for declared in declared_parameters(workflow).values()]


def _click_option(declared: Declared) -> click.Option:
    info = declared.info
    if declared.is_switch:
        flags = f"{info.flag}/{declared.off_flag}"
        return click.Option([flags, destination(info.name)], default=None, help=help_text(info))
    return click.Option(
        [info.flag, destination(info.name)],
        default=None,
        multiple=declared.is_list,
        metavar=metavar(info.field.annotation),
        help=help_text(info),
    )


def metavar(annotation: Any) -> str:
    """Return what stands for a value of this type in help texts: "NUMBER", "MIN:MAX", "none|up-down"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if annotation == str | dict[str, Any]:
        return "NAME|FILE"
    if origin in (Union, UnionType):
        return metavar(next(argument for argument in arguments if argument is not type(None)))
    if origin in (tuple, list):
        return metavar(arguments[0]) if Ellipsis in arguments or len(arguments) == 1 else "MIN:MAX"
    return METAVARS.get(annotation, "VALUE")


def help_text(info: ParameterInfo) -> str:
    """Return the description of a parameter with unit, range and default."""
    description = (info.field.description or "").rstrip(".")
    facts = [fact for fact in (info.unit, allowed(info), _default_text(info)) if fact]
    return f"{description}. [{'; '.join(facts)}]" if facts else f"{description}."


def allowed(info: ParameterInfo) -> str:
    """Return the range of a parameter, for people: "1 to 20", "> 0", "even"; "" when anything goes."""
    low = high = ""
    texts: list[str] = []
    for rule in info.field.metadata:
        if isinstance(rule, Ge):
            low = f"{number_text(rule.ge)}"
        elif isinstance(rule, Gt):
            low = f"> {number_text(rule.gt)}"
        elif isinstance(rule, Le):
            high = f"{number_text(rule.le)}"
        elif isinstance(rule, Lt):
            high = f"< {number_text(rule.lt)}"
        elif isinstance(rule, MultipleOf):
            texts.append("even" if rule.multiple_of == 2 else f"multiple of {rule.multiple_of}")
    return ", ".join(filter(None, [_range_text(low, high), *texts]))


def _range_text(low: str, high: str) -> str:
    if low and high:
        if low.startswith(">") or high.startswith("<"):
            above = low.replace(">", "above") if low.startswith(">") else f"at least {low}"
            return f"{above}, {high.replace('<', 'below') if high.startswith('<') else f'at most {high}'}"
        return f"{low} to {high}"
    if low:
        return low if low.startswith(">") else f"at least {low}"
    return (high if high.startswith("<") else f"at most {high}") if high else ""


def _default_text(info: ParameterInfo) -> str:
    default = info.field.default
    if default is PydanticUndefined:
        return "required"
    text = value_text(default)
    return f"default: {text}" if text else ""


def value_text(value: Any) -> str:
    """Return a parameter's value as people would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {value_text(part)}" for name, part in value.items())
    if isinstance(value, tuple | list):
        if any(isinstance(part, Mapping) for part in value):
            return "; ".join(map(value_text, value))
        separator = ":" if len(value) == 2 and all(isinstance(part, int | float) for part in value) else ", "
        return separator.join(value_text(part) for part in value)
    return str(value)


def number_text(value: Any) -> str:
    """Return a number as people would type it: 10000000, not 1e+07."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"


class SectionedCommand(click.Command):
    """A command whose help shows its options by section, advanced ones only with ``--help-all``. The workflow that is asked for decides which."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; click does not say with all errors in which command they were made."""
        try:
            words = list(_present_flags(args, {"--mode": "--workflow"}))
            workflow = ctx.meta["beamside.workflow"] = self.workflow_in(words)
            return super().parse_args(ctx, list(_present_flags(words, _flags_with_label(workflow))))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def workflow_in(self, words: Sequence[str]) -> Workflow:
        """Return the workflow that the words of a command line mean; it decides which options there are."""
        return asked_workflow(words)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, those of the workflow that is asked for among them."""
        workflow = ctx.meta.get("beamside.workflow")
        found = super().get_params(ctx)
        if workflow is None or workflow.name in SHIPPED:
            return found
        kept = {destination(name) for name in declared_parameters()}
        place = next((number for number, one in enumerate(found) if one.name in kept), len(found))
        others = [parameter for parameter in found if parameter.name not in kept]
        return [*others[:place], *click_options(workflow), *others[place:]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write own options first, then those of each section."""
        everything = bool(ctx.meta.get("beamside.help_all"))
        workflow = ctx.meta.get("beamside.workflow")
        workflow = None if workflow is not None and workflow.name in SHIPPED else workflow
        known = declared_parameters(workflow)
        named = by_parameter({parameter.name or "": parameter for parameter in self.get_params(ctx)})
        own = [parameter for name, parameter in named.items() if name not in known]
        _write_section(ctx, formatter, "Options", own)
        generated = {name: parameter for name, parameter in named.items() if name in known}
        hidden = 0
        for section in sections(workflow):
            members = [
                (name, item) for name, item in known.items() if item.section.key == section.key and name in generated
            ]
            shown = [generated[name] for name, item in members if everything or not item.info.advanced]
            advanced = [generated[name] for name, item in members if item.info.advanced] if everything else []
            basic = [parameter for parameter in shown if parameter not in advanced]
            hidden += len(members) - len(shown)
            _write_section(ctx, formatter, section.title, [*basic, *advanced])
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"{hidden} more options for special cases: --help-all.")


def asked_workflow(words: Sequence[str]) -> Workflow:
    """Return the workflow that a command line asks for, or its facility file and profile; the standard one where neither does.

    It decides which options there are, so it is looked for before they are read. Raises ConfigError for one that cannot be used.
    """
    workflow = _value_of(words, "--workflow")
    if not workflow:
        try:
            facility = load_facility(vocabulary(), _value_of(words, "--config") or None)
            setting = facility.profile(_value_of(words, "--profile")).get("workflow")
        except ConfigError:  # said when the settings are put together
            setting = None
        workflow = str(setting.value) if setting is not None else ""
    return find_workflow(workflow or STANDARD)


def _present_flags(words: Sequence[str], flags: Mapping[str, str]) -> Iterator[str]:
    """Yield the words of a command line with the option that is declared for one that is another name of it."""
    for word in words:
        name, equals, value = word.partition("=")
        yield f"{flags.get(name, name)}{equals}{value}"


def _flags_with_label(workflow: Workflow) -> dict[str, str]:
    """Return the options that are short, by their name with the job's label: --ice.limit for --limit."""
    found: dict[str, str] = {}
    for item in declared_parameters(workflow).values():
        flags = (item.info.flag, item.off_flag) if item.is_switch else (item.info.flag,)
        if item.section.key not in FIXED:
            found |= {f"--{item.section.key}.{flag.removeprefix('--')}": flag for flag in flags if "." not in flag}
    return found


def _value_of(words: Sequence[str], flag: str) -> str:
    """Return the value of an option among the words of a command line; of one given twice, the last."""
    found = ""
    for number, word in enumerate(words):
        if word == "--":
            break
        if word == flag and number + 1 < len(words):
            found = words[number + 1]
        elif word.startswith(f"{flag}="):
            found = word.split("=", 1)[1]
    return found


def _write_section(
    ctx: click.Context, formatter: click.HelpFormatter, title: str, parameters: list[click.Parameter]
) -> None:
    records = [record for record in (parameter.get_help_record(ctx) for parameter in parameters) if record]
    if records:
        with formatter.section(title):
            formatter.write_dl(records)


def all_flags(command: click.Command) -> Iterator[str]:
    """Yield every long option of a command."""
    for parameter in command.params:
        for flag in (*parameter.opts, *parameter.secondary_opts):
            if flag.startswith("--"):
                yield flag


def _show_all_help(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta["beamside.help_all"] = True
        click.echo(ctx.get_help())
        ctx.exit()


def session_options(command: click.Command) -> click.Command:
    """Add the options that say what a session is: profile, facility file, and every declared parameter."""
    command.params += [
        click.Option(
            ["--profile"],
            default="",
            metavar="SCOPE.CAMERA",
            help="Profile of beamside.toml, such as krios.k3; the data are then looked up by --name.",
        ),
        click.Option(["--config"], default=None, metavar="PATH", help="The facility's beamside.toml."),
        *click_options(),
        click.Option(
            ["--help-all"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_show_all_help,
            help="Show all options, including those for special cases, and exit.",
        ),
    ]
    return command
