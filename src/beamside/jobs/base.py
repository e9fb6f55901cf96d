"""What a job type declares, and what its code is given and gives back.

A job type is declared once, in one file. Everything else (command line, report, STAR files, reference pages) is made from the declaration.
Importing a job type must stay light: the session process imports it and must not load torch. So its work is named, and only workers load that.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from beamside.formats.star import StarBlock
from beamside.formats.star_parts import StarParts
from beamside.jobs.ports import Given, Input, Output, lineage
from beamside.jobs.resources import Resources
from beamside.jobs.triggers import EachItem, EachRound, Group, Increments, Trigger
from beamside.parameters import ParameterModel, describe
from beamside.project.relion_options import OPTIONS


@dataclass(frozen=True)
class Metric:
    """Something a job measures for each item: tables, plots, alerts and the report are made from these.

    Attributes
    ----------
    name : key in ``Result.metrics``
    label : what people read
    unit : shown unit, after multiplying by `scale`
    scale : factor from the stored number to the shown one (1e-4 for Å shown in µm)
    good : "low" or "high" when one direction is better
    digits : decimals shown
    main : shown also where there is room for few numbers
    """

    name: str
    label: str
    unit: str = ""
    scale: float = 1.0
    good: Literal["low", "high"] | None = None
    digits: int = 2
    description: str = ""
    main: bool = False


@dataclass(frozen=True)
class Limit:
    """A parameter that is a rule on what the job measures: results that break it are held back. With 0 it says nothing.

    Such a parameter is declared with ``affects_result=False``, as it changes no result; `metric` is shown in the unit of the parameter.
    """

    parameter: str
    metric: str
    comparison: Literal["<", "<=", ">", ">="]


@dataclass(frozen=True)
class Parts:
    """What the result of a round has several of, such as classes: the report lists them in a table, a row for each.

    Attributes
    ----------
    value : name in ``Result.values`` of the list, which has a dictionary for each
    one, several : what people call them
    columns : what may be known of one, by ``Metric.name``; true and false are shown as yes and no
    counted : the column that says how much is in one; those with nothing are left out
    order : columns by which they are sorted, the largest first
    """

    value: str
    one: str
    several: str
    columns: tuple[Metric, ...]
    counted: str = ""
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """An output file of a job that RELION knows: file name in the job directory, RELION 3.1's node type, RELION 4's label.

    One without a node type is no node: RELION 4 and 5 offer it as an input, and RELION 3.1 has no use for it.
    """

    file: str
    relion_type: int | None
    relion_label: str


@dataclass(frozen=True)
class Published:
    """A STAR file of a round whose rows are of items, for people and programs: the session writes it, without the rows of what gates hold back.

    Attributes
    ----------
    role : in ``Result.outputs``, of the file that is shown
    whole, file : role and name in the job directory of the one that has all rows, which the work writes
    block, column : the table in it, and a column with a file of the item
    """

    role: str
    whole: str
    file: str
    block: str
    column: str


@dataclass(frozen=True)
class Picture:
    """An image for people that a job writes for each item: role in ``Result.outputs``, caption, and whether it shows a whole micrograph."""

    role: str
    caption: str
    micrograph: bool = False


@dataclass(frozen=True)
class Optics:
    """What is the same for all exposures of an optics group.

    Attributes
    ----------
    pixel_size, voltage, spherical_aberration, amplitude_contrast : Å, kV, mm, fraction
    dose_per_frame, total_dose : e/Å² per frame, and per movie, which counts unless it is 0
    beam_tilt_x, beam_tilt_y : mrad
    common_pixel_size : Å, the session's pixel size where this group has another one; 0 where it has the same. Particles of all groups are brought
        to pixels of one size, and this says to which
    group : name of the group; "" for what matches no rule and has the session's own values
    """

    pixel_size: float
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    dose_per_frame: float
    total_dose: float = 0.0
    beam_tilt_x: float = 0.0
    beam_tilt_y: float = 0.0
    common_pixel_size: float = 0.0
    group: str = ""

    @property
    def reference_pixel_size(self) -> float:
        """Å, the session's pixel size."""
        return self.common_pixel_size or self.pixel_size

    def used(self, names: Sequence[str]) -> dict[str, float]:
        """Return those of the values that a job uses, by name; without what came later and is not there, so that keys stay what they were."""
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value or name not in _LATER}

    def to_text(self) -> str:
        """Return them in one line, as the journal keeps them: the group, and the values in order, without zeros at the end."""
        return _optics_text(self)

    @staticmethod
    def from_text(text: str) -> Optics:
        """Make them from their line."""
        return _optics_of_text(text)

    def frame_dose(self, frames: int) -> float:
        """Return the dose (e/Å²) of a frame of a movie that the camera wrote with so many `frames`."""
        return self.total_dose / frames if self.total_dose > 0 else self.dose_per_frame


OPTICS_VALUES = tuple(name for name in Optics.__dataclass_fields__ if name != "group")
"""Names of all values of optics."""

_LATER = frozenset({"beam_tilt_x", "beam_tilt_y", "common_pixel_size"})


@lru_cache(maxsize=1000)
def _optics_text(optics: Optics) -> str:
    values = [float(getattr(optics, name)) for name in OPTICS_VALUES]
    while values and not values[-1]:
        values.pop()
    group = (
        optics.group if optics.group.strip("-") else f"{optics.group}-"
    )  # no group is "-", and one of that name "--"
    return sys.intern(" ".join([group, *(f"{value!r}".removesuffix(".0") for value in values)]))


@lru_cache(maxsize=1000)
def _optics_of_text(text: str) -> Optics:
    group, *values = text.split(" ")
    named = dict.fromkeys(OPTICS_VALUES, 0.0) | dict(zip(OPTICS_VALUES, map(float, values), strict=False))
    return Optics(**named, group=group if group.strip("-") else group[1:])


@dataclass(frozen=True)
class Item:
    """One thing to process: its name (path below the project without extension), and what each port of the job gives of it.

    ``shared`` has what ports give that take one thing for all items; nothing is looked for there unless it is asked for by its port.
    """

    name: str
    inputs: Mapping[str, Given] = field(default_factory=dict)
    shared: Mapping[str, Given] = field(default_factory=dict)

    def find(self, role: str) -> str:
        """Return the path of the nearest output `role`; "" when there is none."""
        return next((found.outputs[role] for found in lineage(list(self.inputs.values())) if role in found.outputs), "")

    def output(self, role: str) -> str:
        """Return the path of the nearest output `role`; raises KeyError."""
        if found := self.find(role):
            return found
        raise KeyError(role)

    def value(self, name: str, default: Any = None) -> Any:
        """Return the nearest value of this name."""
        return next(
            (found.values[name] for found in lineage(list(self.inputs.values())) if name in found.values), default
        )


@dataclass(frozen=True)
class ItemGroup:
    """Items that belong together, as one thing to process.

    Attributes
    ----------
    name : of the group, which is an item itself: a path below the project without extension
    items : the members, by name
    left_out : members that the group is without, each with why: they were given up, or a person has taken them out
    """

    name: str
    items: Sequence[Item]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What processing an item gave. All of it is JSON; paths are relative to the project.

    Attributes
    ----------
    metrics : numbers by ``Metric.name``
    outputs : files by role
    values : other results that later jobs or STAR files need
    rejected : a reason when the item was processed and should not be used further
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    rejected: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form kept in the journal."""
        return {
            "metrics": dict(self.metrics),
            "outputs": dict(self.outputs),
            "values": dict(self.values),
            "rejected": self.rejected,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """Make a result from its JSON form."""
        return cls(data.get("metrics", {}), data.get("outputs", {}), data.get("values", {}), data.get("rejected", ""))


@dataclass(frozen=True)
class Workspace:
    """Where and how an item is processed: project directory, job ("MotionCorr/job002"), its optics, threads, and the device that torch computes on.

    Of a round, whose items may be of several optics groups, `optics` are the session's own, and `item_optics` those of the items that have others.
    """

    root: Path
    job: str
    optics: Optics
    threads: int = 1
    device: str = "cpu"
    item_optics: Mapping[str, Optics] = field(default_factory=dict)

    def optics_of(self, item: Item) -> Optics:
        """Return the optics of one of the items."""
        return self.item_optics.get(item.name, self.optics)

    def path(self, item: Item | ItemGroup, suffix: str) -> Path:
        """Return the absolute path ``<job>/<item><suffix>`` and make its directory."""
        path = self.root / self.job / f"{item.name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def relative(self, path: Path) -> str:
        """Return `path` relative to the project."""
        return path.relative_to(self.root).as_posix()

    def absolute(self, relative: str) -> Path:
        """Return the absolute path of a project-relative one."""
        return self.root / relative


@dataclass(frozen=True)
class Row:
    """A finished item of a job, for its STAR files: the item with the results of earlier jobs, and the result of this one.

    `optics` are those that all this was made with; None for those of the job.
    """

    item: Item
    result: Result
    optics: Optics | None = None


@dataclass(frozen=True)
class RelionContext:
    """What RELION's options of a job are made from.

    Attributes
    ----------
    parameters, optics : of the job; the optics are the session's own, and rows may have others
    inputs : files that RELION would take as inputs, by the job type's ports
    rows : the finished items; what was found automatically is known from them
    before : parameters of the jobs that it is made from, the nearest first
    lineage : names of the kinds of items that it is made from
    job, root : the job's name, and the project
    shared : what ports give that take one thing for all items, as far as it is there
    """

    parameters: Any
    optics: Optics
    inputs: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    before: Sequence[Any] = ()
    lineage: frozenset[str] = frozenset()
    job: str = ""
    root: Path = Path()
    shared: Mapping[str, Result] = field(default_factory=dict)

    def newest(self, value: str) -> Any:
        """Return a value of the newest result that has it, its own or that of what it was made from; None while there is none."""
        for row in reversed(self.rows):
            found = row.result.values.get(value)
            if found is None:
                found = row.item.value(value)
            if found is not None:
                return found
        return None

    def setting(self, name: str, default: Any = None) -> Any:
        """Return the parameter `name` of this job, or of the nearest one before that has it."""
        for parameters in (self.parameters, *self.before):
            if name in type(parameters).model_fields:
                return getattr(parameters, name)
        return default


@dataclass(frozen=True)
class RelionViewer:
    """A job type of RELION, by number and label, and options of it that its window remembers."""

    type: int
    label: str
    options: Mapping[str, str]


StarContent = list[StarBlock] | StarParts | str
"""A STAR file's blocks, one that grows by parts, or the text of a file that only bears the name."""


def _no_port(job_type: str, port: str) -> Input:
    raise KeyError(f"{job_type} has no input {port}")


def relion_value(value: Any) -> str:
    """Return a parameter's value as RELION writes it in ``job.star``."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


_IN_ROUNDS = (Increments, EachRound)


class JobType:
    """One kind of job. Subclasses declare the class variables, and say how their results become STAR files."""

    name: ClassVar[str]
    """Short name: "motion"; the key of this job's results."""
    title: ClassVar[str]
    """What people read: "Motion correction"."""
    directory: ClassVar[str]
    """RELION's directory: "MotionCorr"."""
    relion_type: ClassVar[int | None] = None
    """Number of RELION's job type that it is shown as; None for one that RELION has no word for: it is not in RELION's pipeline then."""
    relion_label: ClassVar[str] = ""
    version: ClassVar[str]
    """Version of the algorithm. Results of an earlier one stay valid, and are computed again when that is asked for."""
    inputs: ClassVar[tuple[Input, ...]] = ()
    """What it takes, by ports; none for what acquisition has taken in."""
    outputs: ClassVar[tuple[Output, ...]] = ()
    """What it gives, by ports; the first is the main one."""
    trigger: ClassVar[Trigger] = EachItem()
    """When it runs."""
    work: ClassVar[str] = ""
    """The function that does the work, as "module:function"; empty for what acquisition does. Only workers load its module; see `load_work`.

    It is called as ``function(item, parameters, workspace)``, reads its inputs, writes its outputs atomically, and returns a small `Result`.

    That of a job that works in rounds is called as ``function(items, parameters, workspace, round_name=..., final=...)`` and takes all items in,
    continuing from the checkpoint in the job directory. One that follows the rounds of another gets one item: the round that it is about.

    That of a job that takes groups is called as ``function(group, parameters, workspace)``, with an `ItemGroup`.

    Sentences for people go to ``values["warnings"]``, by what they are about.
    """
    resources: ClassVar[Resources] = Resources()
    """What a task of it wants of the machine."""
    Parameters: ClassVar[type[ParameterModel]]
    metrics: ClassVar[tuple[Metric, ...]] = ()
    limits: ClassVar[tuple[Limit, ...]] = ()
    """Those of its parameters that are rules on its metrics."""
    nodes: ClassVar[tuple[Node, ...]] = ()
    pictures: ClassVar[tuple[Picture, ...]] = ()
    parts: ClassVar[Parts | None] = None
    """What its rounds have several of, where the report is to list it."""
    optics_used: ClassVar[tuple[str, ...]] = OPTICS_VALUES
    """Names of the `Optics` values that change this job's results."""

    published: ClassVar[tuple[Published, ...]] = ()
    """Tables of its rounds that the session makes of others."""

    spare: ClassVar[tuple[str, ...]] = ()
    """Roles in ``Result.outputs``, besides those of `pictures`, of files that no later step needs: for people, or to save time."""

    fixed_options: ClassVar[Mapping[str, str]] = {}
    """RELION's options that always have the same value in Beamside."""

    @property
    def aggregate(self) -> bool:
        """True when it works in rounds: over all items together, or about each round of another job."""
        return isinstance(self.trigger, _IN_ROUNDS)

    @property
    def grouping(self) -> bool:
        """True when items that belong together are one item for it."""
        return isinstance(self.trigger, Group)

    def group_of(self, name: str, values: Mapping[str, Any], parameters: Any) -> str:
        """Return the name of the group that an item belongs to, which is a path such as "squares/GridSquare_17"; "" for one that belongs to none.

        Every job type whose trigger is `Group` says this. It is asked again when something is recorded of the item, so it must be quick.

        Parameters
        ----------
        name : of the item
        values : of the result that the item has in the first of the jobs before: of a file that was taken in, its ``source`` (the path at the
            source) and its ``metadata`` (what was found beside it). Of an item that was given up there only the ``source``, where it is known
        parameters : of this job
        """
        raise NotImplementedError(
            f"The job type {self.name!r} takes groups, and must say with group_of what belongs together."
        )

    def input(self, port: str) -> Input:
        """Return the input of this name; raises KeyError."""
        return next((given for given in self.inputs if given.name == port), None) or _no_port(self.name, port)

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return the options of ``job.star`` with which RELION would do what this job does, automatic values as they were found."""
        options = {**(OPTIONS.get(self.relion_type, {}) if self.relion_type is not None else {}), **self.fixed_options}
        named = {port.relion_option: context.inputs.get(port.name, "") for port in self.inputs if port.relion_option}
        options.update((option, file) for option, file in named.items() if file)
        for info in describe(type(context.parameters)):
            if info.relion:
                options[info.relion] = relion_value(getattr(context.parameters, info.name))
        return options

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Return sentences on what RELION does differently when it clones, continues or shows this job."""
        return []

    def write_for_relion(self, rows: Sequence[Row], optics: Optics, job: str, root: Path) -> int:
        """Write the files, where they are missing, from which RELION's programs know that items are done; return how many were.

        Called when a session begins: RELION's cleaning takes such files away, and results of earlier versions have none.
        """
        return 0

    def relion_viewer(self, context: RelionContext) -> RelionViewer | None:
        """Return the options of another job type of RELION with which it shows what this job made; None where it needs none."""
        return None

    def camera_options(self, values: Mapping[str, Any], parameters: Any, optics: Optics) -> dict[str, str]:
        """Return RELION's options that name the camera's files, from the `values` of a movie that was taken in."""
        return {}

    def adopt(self, parameters: Any, root: Path) -> Any:
        """Return `parameters` with the files that they name taken into the project at `root`, under names that tell their content.

        Called before a session starts. An item's key has the name, so that other content under the old name is noticed, and a session goes on
        when the original is gone. Raises InputError for files that cannot be used.
        """
        return parameters

    def contradiction(self, parameters: Any, connected: Collection[str]) -> str:
        """Return a sentence that says why these parameters cannot be where just these ports are connected; "" when they can."""
        return ""

    def needed(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """Return those of a result's files, by role, that later steps or tables may need: all but pictures and what is spare."""
        spare = {*self.spare, *(picture.role for picture in self.pictures)}
        return {role: path for role, path in outputs.items() if role not in spare}

    def written_by_work(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """Return those of a result's files, by role, that the work has written: all but the tables that the session makes of others."""
        ours = {table.role for table in self.published if table.whole in outputs}
        return {role: path for role, path in outputs.items() if role not in ours}

    def restorable(self, result: Result, role: str, job: str, root: Path) -> bool:
        """Tell whether `restore` can be expected to write the file of this role, which is gone, again."""
        return False

    def restore(self, results: Sequence[Result], job: str, root: Path) -> int:
        """Write files of `results` that are gone and of which the job's tables have the content again; returns how many. Nothing is computed."""
        return 0

    def rejected_by_limit(self, result: Result) -> bool:
        """Tell whether an earlier version rejected a result by what is a rule now."""
        return False

    def automatic(self, given: Mapping[str, Any], newest: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the parameters of this job that are 0, which means "automatic", became; those that are not known yet are left out.

        Parameters
        ----------
        given : the parameters by name; those of an earlier version may lack some
        newest : values of its newest result
        """
        return {}

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return the STAR files of the whole job, by name in the job directory, for the finished items."""
        return {}

    def current_nodes(self, rows: Sequence[Row]) -> tuple[Node, ...]:
        """Return the output files that RELION should know of, given the finished items."""
        return self.nodes if rows else ()

    def main_node(self, rows: Sequence[Row]) -> Node | None:
        """Return the output file that a job which follows takes as its input; None while there is none."""
        return self.nodes[0] if self.nodes else None

    def output_node(self, output: str, rows: Sequence[Row]) -> Node | None:
        """Return the file of one of the outputs; that of the main one, unless a job type says otherwise."""
        return self.main_node(rows)
