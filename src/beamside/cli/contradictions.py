"""Settings that are possible one by one, and contradict each other: told before a session starts, because each item would fail or be rejected.

A session that exists goes on with what it has, so nothing of this is asked when settings are read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from beamside.cli.options import Declared, declared_parameters, value_text
from beamside.config import COMMAND_LINE, DEFAULT, Setting
from beamside.flow.optics_rules import parse_rule
from beamside.flow.settings import SessionSettings, sections
from beamside.imaging.ctf.limits import DEFOCUS_STEP, enough_rings, finest_resolution
from beamside.jobs.extract import default_box
from beamside.jobs.select import class_numbers


@dataclass(frozen=True)
class Given:
    """The settings of a session by parameter name: validated `values`, and where each came from."""

    values: Mapping[str, Any]
    origins: Mapping[str, Setting]
    declared: Mapping[str, Declared]
    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, name: str) -> str:
        """Return what a parameter is called in settings: where several jobs have one of its name, that of the job that is looked at."""
        return self.names.get(name, name)

    def __getitem__(self, name: str) -> Any:
        return self.values[self.name(name)]

    def typed(self, name: str) -> bool:
        """Tell whether a value was given on the command line."""
        found = self.origins.get(self.name(name))
        return found is not None and found.origin == COMMAND_LINE

    def asked(self, name: str) -> bool:
        """Tell whether a value was given anywhere."""
        found = self.origins.get(self.name(name))
        return found is not None and found.origin != DEFAULT

    @property
    def pixel_size(self) -> float:
        """Å of a pixel of the micrographs."""
        return float(self["pixel_size"] * self.binning)

    @property
    def binning(self) -> float:
        """By which movies are binned; 1 where there are none."""
        return float(self.values.get(self.name("binning"), 1.0))

    def subject(self, name: str) -> str:
        """Return a setting as people read it: "--max-defocus 50000 Å (default)"."""
        info, flat = self.declared[self.name(name)].info, self.name(name)
        if self[name] == "":
            return info.flag
        where = "" if self.typed(name) else f" ({self.origins[flat].origin if flat in self.origins else DEFAULT})"
        return f"{info.flag} {value_text(self[name])}{f' {info.unit}' if info.unit else ''}{where}"


@dataclass(frozen=True)
class Contradiction:
    """Two settings, what is wrong between them, and what to do about it."""

    first: str
    relation: str
    second: str
    advice: str = "change one of them"


def contradictions(settings: SessionSettings, origins: Mapping[str, Setting]) -> list[str]:
    """Return a sentence for each pair of settings that contradict each other, naming both."""
    declared = declared_parameters(settings.workflow)
    names = [section.names for section in sections(settings.workflow)]
    several = [own for own in names if any(name != flat for name, flat in own.items())]
    found: list[str] = []
    for own in ({}, *several):
        given = Given(settings.flat(), origins, declared, own)
        for rule in RULES:
            with suppress(KeyError):  # the workflow has no job with these parameters
                for one in rule(given):
                    found.append(f"{given.subject(one.first)} {one.relation} {given.subject(one.second)}: {one.advice}")
    return list(dict.fromkeys(found))


def _ranges(given: Given) -> Iterator[Contradiction]:
    low, high = given["min_defocus"], given["max_defocus"]
    if low > high:
        yield Contradiction("min_defocus", "is above", "max_defocus")
    elif high - low < DEFOCUS_STEP:
        advice = f"make the range at least {DEFOCUS_STEP:g} Å wide"
        yield Contradiction("min_defocus", "leaves no range below", "max_defocus", advice)
    if given["min_phase_shift"] > given["max_phase_shift"]:
        yield Contradiction("min_phase_shift", "is above", "max_phase_shift")


def _resolutions(given: Given) -> Iterator[Contradiction]:
    lowest, highest = given["ctf_min_resolution"], given["ctf_max_resolution"]
    if not enough_rings(lowest, highest):
        advice = "the second must be at most half of the first"
        yield Contradiction("ctf_min_resolution", "leaves too little to fit up to", "ctf_max_resolution", advice)
    elif not enough_rings(lowest, finest_resolution(highest, given.pixel_size)):
        advice = "use finer pixels, or fit from a lower resolution on"
        yield Contradiction("ctf_min_resolution", "leaves too little to fit with", _coarse(given), advice)
    if 0 < given["reject_resolution"] < 2 * given.pixel_size:
        advice = f"no micrograph shows more than {2 * given.pixel_size:g} Å, so all would be held back"
        yield Contradiction("reject_resolution", "is finer than two pixels of", _coarse(given), advice)
    if given["pick_resolution"] > given["particle_diameter"][1]:
        advice = "particles cannot be seen at a resolution that is coarser than they are large"
        yield Contradiction("pick_resolution", "is coarser than", "particle_diameter", advice)


def _coarse(given: Given) -> str:
    """Return the parameter that makes the micrographs' pixels large."""
    return "binning" if given.binning > 1 else "pixel_size"


def _sizes(given: Given) -> Iterator[Contradiction]:
    smallest, largest = given["particle_diameter"]
    if given["box_size"]:
        box = given["box_size"] * given.pixel_size
        if box < largest:
            advice = f"the box is {box:.0f} Å wide: make it at least 1.5 times the largest diameter, or leave it out"
            yield Contradiction("box_size", "is smaller than the particles of", "particle_diameter", advice)
        if given["background_diameter"] > box:
            advice = f"the box is {box:.0f} Å wide"
            yield Contradiction("background_diameter", "is larger than", "box_size", advice)
    if 0 < given["class_mask"] < smallest:
        yield Contradiction("class_mask", "is smaller than the particles of", "particle_diameter")


def _groups(given: Given) -> Iterator[Contradiction]:
    """Particles of all optics groups get pixels of one size, which cannot be finer than those of a micrograph."""
    largest = given["particle_diameter"][1]
    box = given["box_size"] or default_box(largest, given.pixel_size, given["class_box"])
    common = given.pixel_size * box / min(box, given["class_box"])
    for rule in map(parse_rule, given["optics_group"]):
        pixel_size = dict(rule.values).get("pixel_size", 0.0) * given.binning
        if pixel_size > common:
            advice = (
                f"the particles of all groups get pixels of {common:.3g} Å, and those of the micrographs of {rule.name} are {pixel_size:.3g} Å: make "
                "--class-box smaller or --box-size larger"
            )
            yield Contradiction("optics_group", "leaves pixels that are too coarse for", "class_box", advice)


def _counts(given: Given) -> Iterator[Contradiction]:
    if given["classes"] > given["class_min"]:
        advice = "the first round would have fewer particles than classes"
        yield Contradiction("classes", "is more than", "class_min", advice)
    if max(class_numbers(given["select_classes"]), default=0) > given["classes"]:
        yield Contradiction("select_classes", "names classes beyond", "classes")


def _doses(given: Given) -> Iterator[Contradiction]:
    if not given["total_dose"]:
        return
    if given.asked("dose") and given["dose"] > given["total_dose"]:
        advice = "a frame cannot have more than its movie"
        yield Contradiction("dose", "is more than", "total_dose", advice)
    if given.asked("eer_dose") and given["eer_dose"] > given["total_dose"]:
        advice = "no movie would fill a single fraction"
        yield Contradiction("eer_dose", "is more than", "total_dose", advice)


def _unused(given: Given) -> Iterator[Contradiction]:
    """What is typed and would have no effect is most likely meant otherwise; a profile may hold what only some sessions use."""
    for name in ("gain_rotate", "gain_flip", "gain_mode", "gain_wait"):
        advice = "add it, or leave the other one out"
        if given.typed(name) and not given["gain"]:
            yield Contradiction(name, "is about a gain reference, but none is given with", "gain", advice)
    if given.typed("pick_references") and given["pick_references"] and given["pick_method"] != "template":
        advice = "add --pick-method template"
        yield Contradiction("pick_references", "is not used with", "pick_method", advice)
    if given.typed("pick_threshold") and given.typed("picks_per_area") and given["picks_per_area"]:
        yield Contradiction("pick_threshold", "is not used with", "picks_per_area", "leave one of them out")
    for name in ("select_score", "select_top", "select_min_share"):
        if given.typed(name) and given["select_classes"]:
            yield Contradiction(name, "is not used with", "select_classes", "leave one of them out")


Rule = Callable[[Given], Iterator[Contradiction]]
RULES: tuple[Rule, ...] = (_ranges, _resolutions, _sizes, _groups, _counts, _doses, _unused)
