"""How a stage is connected: the stages that it is made from, by port, and which of them have the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from beamside.flow.optics import ItemOptics
from beamside.jobs.base import JobType
from beamside.jobs.ports import Wiring
from beamside.parameters import ParameterModel
from beamside.project.records import JobEntry

if TYPE_CHECKING:
    from beamside.flow.stages import Stage


@dataclass(eq=False)
class StageLinks:
    """A job of the workflow: its type, parameters and table, and the stages that its ports are connected to.

    `suppliers` are the stages behind ports that take one thing for all items: no item comes from there. `gone` says that RELION has deleted the job.
    """

    job_type: JobType
    parameters: ParameterModel
    item_optics: ItemOptics
    job: JobEntry
    upstreams: Mapping[str, Stage] = field(default_factory=dict)
    suppliers: Mapping[str, Stage] = field(default_factory=dict)
    label: str = ""
    title: str = ""
    gone: bool = False

    def __post_init__(self) -> None:
        self.label = self.label or self.job_type.name
        self.title = self.title or self.job_type.title

    @property
    def name(self) -> str:
        """Its label in the workflow."""
        return self.label

    @property
    def is_source(self) -> bool:
        """True for the stage that has what acquisition takes in."""
        return not self.upstreams

    @cached_property
    def before(self) -> tuple[Stage, ...]:
        """The stages that this one is made from, directly or not, each after those that it is made from."""
        found: dict[int, Stage] = {}
        for upstream in self.upstreams.values():
            for stage in (*upstream.before, upstream):
                found.setdefault(id(stage), stage)
        return tuple(found.values())

    @cached_property
    def alongside(self) -> tuple[Stage, ...]:
        """Those of the stages before that have the same items; a group and a round are items of their own."""
        found: dict[int, Stage] = {}
        for port in self.job_type.inputs:
            if port.takes == "each" and (upstream := self.upstreams.get(port.name)) is not None:
                for stage in upstream.line:
                    found.setdefault(id(stage), stage)
        return tuple(stage for stage in self.before if id(stage) in found)

    @cached_property
    def wiring(self) -> Wiring:
        """How this stage and those before it are connected, by label."""
        return {
            stage.label: {port: other.label for port, other in stage.upstreams.items()}
            for stage in (*self.before, self)
        }

    @property
    def lacks_shared(self) -> bool:
        """True while something that is the same for all items is not there yet: nothing can be done here until then."""
        return any(port not in self.job.shared for port in self.suppliers)

    @property
    def waits_for_shared(self) -> bool:
        """True while this stage, or one that it is made from, lacks something that is the same for all items."""
        return any(stage.lacks_shared for stage in (*self.before, self))

    def _shared_keys(self) -> tuple[str, ...]:
        """Return the identities of what is the same for all items: in a key they follow those of the results that an item is made from."""
        used = self.job.shared
        return tuple(used[port].identity if port in used else "" for port in self.suppliers)

    @cached_property
    def required(self) -> tuple[Stage, ...]:
        """The stages without whose results an item is not processed."""
        return self._taking_each(optional=False)

    @cached_property
    def required_ports(self) -> frozenset[str]:
        """The ports behind which these are."""
        return frozenset(port for port, stage in self.upstreams.items() if stage in self.required)

    @cached_property
    def optional(self) -> tuple[Stage, ...]:
        """The stages of which an item needs one at least, when none is required, and which it waits for."""
        return self._taking_each(optional=True)

    def _taking_each(self, *, optional: bool) -> tuple[Stage, ...]:
        ports = {port.name for port in self.job_type.inputs if port.takes == "each" and port.optional == optional}
        return tuple(other for port, other in self.upstreams.items() if port in ports)

    @cached_property
    def counted(self) -> tuple[Stage, ...]:
        """The stages whose keys a key here is made of: one that another of them was made from adds nothing."""
        distinct = list(dict.fromkeys((*self.required, *self.optional)))
        return tuple(stage for stage in distinct if not any(stage in other.before for other in distinct))

    @property
    def gathered(self) -> Stage:
        """The stage whose items an aggregate takes all together, or whose rounds it follows."""
        return next(iter(self.upstreams.values()))

    @property
    def deleted(self) -> bool:
        """True when RELION has deleted this job, or one that it cannot do without: nothing is done here until that is taken back."""
        if not self.gone and not any(stage.gone for stage in self.before):
            return False
        if self.gone or any(stage.deleted for stage in self.upstreams.values() if stage not in self.optional):
            return True
        return bool(self.optional) and all(stage.deleted for stage in self.upstreams.values())
