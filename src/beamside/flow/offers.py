"""One thing that a job takes from another for all its items: the first is taken as soon as it is there, and newer ones are offered.

A job that takes all items together makes a new thing in each round, and whoever follows with all its items would do everything again each time. So
the first one stays in use until a person takes a newer one, which computes again what depends on it, or says that it is not wanted.

What is found is copied at once, under a name that tells its content: a round writes over the files of the one before. It goes to the journal only
then, and what is to be done again follows from the keys; so it does not matter when the process dies.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from beamside.acquisition.reports import Trouble
from beamside.errors import ProjectError
from beamside.flow.cost import Cost, cost_after
from beamside.flow.gate import is_shut
from beamside.flow.stages import Stage
from beamside.flow.table import Tables
from beamside.formats.atomic import replace_file
from beamside.project.records import ItemEntry, ItemState, Version

log = logging.getLogger(__name__)

FOLDER = "Shared"
"""Folder in the project for what jobs have taken from others."""

TOLD, AWAITED = "offer:", "shared:"
"""How the keys of what is told begin."""


@dataclass(frozen=True)
class Offer:
    """A newer thing that a job could take.

    Attributes
    ----------
    stage, port : of the job that could take it
    version : what it could have
    costs : the results that would be computed again
    declined : whether a person has said that it is not wanted
    """

    stage: Stage
    port: str
    version: Version
    costs: Sequence[Cost]
    declined: bool = False

    def sentence(self) -> str:
        """Return what is offered, and what it would cost, in words."""
        return (
            f"{use_of(self.stage, self.port).removesuffix('.')}; those of {self.version.item} are there now. "
            f"To take them computes again: {cost_words(self.costs)}."
        )


def use_of(stage: Stage, port: str) -> str:
    """Return what a job uses for all its items, or that it waits for it, as a sentence."""
    supplier, kind = stage.suppliers[port], stage.job_type.input(port).kind.title.lower()
    used = stage.job.shared.get(port)
    if used is None:
        return f"{stage.title} begins when {supplier.title} has given {kind}."
    return f"{stage.title} uses {kind} of {supplier.title}, those of {used.item}."


def cost_words(costs: Sequence[Cost]) -> str:
    """Return the results that are computed again, and how long they took, in words."""
    if not costs:
        return "nothing"
    listed = [f"{cost.results} {'result' if cost.results == 1 else 'results'} of {cost.title}" for cost in costs]
    seconds = sum(cost.seconds for cost in costs)
    took = (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
    return f"{' and '.join(listed)}, which took {took} of the workers' time"


def offers_in(stages: Sequence[Stage]) -> list[Offer]:
    """Return what could be taken, also what was declined before."""
    return [
        Offer(stage, port, version, cost_after(stages, stage), declined)
        for stage in stages
        for port in stage.suppliers
        for known, declined in ((stage.job.offers, False), (stage.job.declined, True))
        if (version := known.get(port)) is not None
    ]


def chosen(offers: Sequence[Offer], job: str, identity: str = "") -> Offer:
    """Return the offer to a job, by its label or name; without one, the only offer. Raises ProjectError when there is no such, or another by now."""
    found = [one for one in offers if job in ("", one.stage.label, one.stage.job.name)]
    if not found:
        whom = f" to {job!r}" if job else ""
        raise ProjectError(f"Nothing is offered{whom}: `beamside session offers` shows what is.")
    if len(found) > 1:
        raise ProjectError(
            f"There are offers to {' and '.join(one.stage.label for one in found)}: say which with --job."
        )
    if identity and found[0].version.identity != identity:
        raise ProjectError(
            f"What is offered to {found[0].stage.label} is another by now, that of {found[0].version.item}; look at it again."
        )
    return found[0]


class Offers:
    """Looks after what the jobs of a session take once for all their items."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.root = tables, tables.root
        self._looked: dict[tuple[str, str], tuple[int, int]] = {}
        self._told = False

    def consider(self) -> None:
        """Take what is there for the first time, and offer what is newer than what is used."""
        changed = not self._told
        for stage in self.tables.stages:
            for port, supplier in stage.suppliers.items():
                changed |= self._look(stage, port, supplier)
        if changed:
            self.tell()

    def tell(self) -> None:
        """Tell what is offered, and what is waited for."""
        name = shlex.quote(str(self.root))
        offers = [
            Trouble(
                f"{TOLD}{one.stage.name}:{one.port}",
                f"{one.sentence()} To do so: beamside session take {name} --job {one.stage.name}; to stay with what is used: the same "
                f"with --decline.",
                "info",
            )
            for one in offers_in(self.tables.stages)
            if not one.declined
        ]
        awaited = [
            Trouble(f"{AWAITED}{stage.name}:{port}", use_of(stage, port), "info")
            for stage in self.tables.stages
            for port in stage.suppliers
            if port not in stage.job.shared
        ]
        self.tables.problems.hold(TOLD, offers)
        self.tables.problems.hold(AWAITED, awaited)
        self._told = True

    def answer(self, job: str, identity: str, who: str, *, decline: bool) -> str:
        """Take what is offered to a job, or stay with what it has; returns what that means. Raises ProjectError when nothing is offered so."""
        offer = chosen(offers_in(self.tables.stages), job, identity)
        stage, version = offer.stage, offer.version
        self.tables.writer.version(stage.job.name, offer.port, "declined" if decline else "used", version, who)
        again = 0 if decline else self.tables.take_shared()
        self.tell()
        if decline:
            return f"{stage.title} stays with what it has; what was made in {version.item} is not offered again."
        results = "1 result is" if again == 1 else f"{again} results are"
        return f"{stage.title} takes what was made in {version.item}. {results} computed again."

    def _look(self, stage: Stage, port: str, supplier: Stage) -> bool:
        """Look at the newest thing that there is, when there may be a new one; returns True when something was recorded."""
        now = (supplier.job.revision, supplier.job.gate_changes)
        if self._looked.get((stage.name, port)) == now:
            return False
        if supplier.job_type.aggregate and supplier.in_flight:  # its files may be written over just now
            return False
        version = self._newest(stage, port, supplier)
        recorded = self._withdraw(stage, port, supplier) if version is None else self._record(stage, port, version)
        self._looked[stage.name, port] = now
        return recorded

    def _withdraw(self, stage: Stage, port: str, supplier: Stage) -> bool:
        """Offer no longer what a rule or a person holds back by now."""
        offered = stage.job.offers.get(port)
        if offered is None or not is_shut(supplier.job, offered.item):
            return False
        self.tables.writer.version(stage.job.name, port, "withdrawn", offered)
        return True

    def _record(self, stage: Stage, port: str, version: Version) -> bool:
        job, writer = stage.job, self.tables.writer
        used, offered, declined = (known.get(port) for known in (job.shared, job.offers, job.declined))
        if used is None:
            writer.version(job.name, port, "used", version)
            log.info("%s takes %s of %s", stage.title, version.item, version.job)
            return True
        if version.identity == used.identity:
            if offered is not None:
                writer.version(job.name, port, "withdrawn", offered)
            return offered is not None
        if any(known is not None and known.identity == version.identity for known in (offered, declined)):
            return False
        writer.version(job.name, port, "offered", version)
        for former in (offered, declined):
            self._remove(former)
        return True

    def _newest(self, stage: Stage, port: str, supplier: Stage) -> Version | None:
        """Return the newest thing of `supplier` with copies of its files; None while there is none that can be used."""
        entry = _newest_result(supplier)
        if entry is None or entry.result is None:
            return None
        outputs = entry.result["outputs"]
        files = {role: self.root / outputs[role] for role in stage.job_type.input(port).reads if role in outputs}
        if not files:
            return None
        try:
            contents = {role: path.read_bytes() for role, path in files.items()}
        except FileNotFoundError:  # cleaned; that is told elsewhere
            return None
        digest = hashlib.sha256()
        for role, content in contents.items():
            digest.update(f"{role}:{len(content)}:".encode() + content)
        identity = digest.hexdigest()[:20]
        copies: dict[str, str] = {}
        for role, content in contents.items():
            copies[role] = f"{FOLDER}/{stage.name}-{port}-{role}-{identity[:12]}{files[role].suffix}"
            if not (self.root / copies[role]).exists():
                (self.root / FOLDER).mkdir(exist_ok=True)
                replace_file(self.root / copies[role], content)
        result = {
            "metrics": entry.result["metrics"],
            "outputs": copies,
            "values": entry.result["values"],
            "rejected": "",
        }
        return Version(identity, supplier.job.name, entry.name, result)

    def _remove(self, version: Version | None) -> None:
        """Remove the copies of something that can no longer be taken."""
        if version is None:
            return
        for path in version.result["outputs"].values():
            with suppress(OSError):
                (self.root / path).unlink()


def _newest_result(stage: Stage) -> ItemEntry | None:
    """Return the newest result that a stage gives on and that no gate holds back, neither a rule nor a person; of an aggregate, its last round."""
    if stage.job_type.aggregate:
        found = [stage.newest_round()]
    else:
        found = [
            entry for entry in stage.job.items.values() if entry.state is ItemState.DONE and entry.result is not None
        ]
    usable = [
        entry
        for entry in found
        if entry is not None and not (is_shut(stage.job, entry.name) or stage.is_shut(entry.name))
    ]
    return max(usable, key=lambda entry: entry.finished, default=None)
