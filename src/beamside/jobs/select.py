"""Class selection: an aggregate that follows each round of 2D classification."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import field_validator

from beamside.jobs.base import (
    JobType,
    Metric,
    Node,
    Picture,
    Published,
    RelionContext,
    Row,
    relion_value,
)
from beamside.jobs.class_table import CLASSES_TABLE
from beamside.jobs.item_kinds import AVERAGES, CLASSES, SELECTION
from beamside.jobs.ports import Input, Output
from beamside.jobs.resources import Resources
from beamside.jobs.triggers import EachRound
from beamside.parameters import ParameterModel, parameter


class SelectParameters(ParameterModel):
    """Parameters of class selection."""

    select_score: float = parameter(
        0.4,
        "Keep classes with at least this class score (0: junk, 1: certainly particles).",
        ge=0,
        le=1,
        relion="rank_threshold",
    )
    select_min_share: float = parameter(
        0.1,
        "Classes with fewer particles than this fraction of an equal share are not kept, whatever their score.",
        ge=0,
        le=10,
        advanced=True,
    )
    select_top: int = parameter(0, "Keep at most this many classes, the best first; 0 keeps all that pass.", ge=0)
    select_classes: str = parameter(
        "", "Numbers of the classes to keep, chosen by hand, such as 1,4,7-9; scores are then ignored."
    )
    select_recentre: bool = parameter(
        True,
        "Shift class averages so that their centres of mass are in the middle, and the particles' origins with them.",
        relion="do_recenter",
    )
    select_duplicate_distance: float = parameter(
        30.0,
        "Where classification has moved particles of a micrograph closer together than this, only the likeliest is kept; 0 keeps all.",
        unit="Å",
        ge=0,
        le=10_000,
        advanced=True,
    )

    @field_validator("select_classes")
    @classmethod
    def _numbers(cls, value: str) -> str:
        class_numbers(value)
        return value


def class_numbers(text: str) -> list[int]:
    """Return the class numbers, from 1, that a text such as "1,4,7-9" names; raises ValueError for any other text."""
    found: set[int] = set()
    for part in text.replace(",", " ").split():
        matched = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        first, last = (int(number) for number in (matched[1], matched[2] or matched[1])) if matched else (0, 0)
        if not 1 <= first <= last:
            raise ValueError(f"must be class numbers such as 1,4,7-9, not {part!r}")
        found.update(range(first, last + 1))
    return sorted(found)


class Selection(JobType):
    """Score the classes of the newest round and keep the particles of the good ones."""

    name = "select"
    title = "Class selection"
    directory = "Select"
    relion_type = 7
    relion_label = "relion.select.class2dauto"
    version = "3"
    optics_used = ()
    inputs = (Input("classes", CLASSES, reads=("data", "model", "optimiser", "classes"), relion_option="fn_model"),)
    outputs = (Output("particles", SELECTION), Output("classes", AVERAGES))
    trigger = EachRound()
    work = "beamside.jobs.select_worker:select_classes"
    resources = Resources(cores=1)
    Parameters = SelectParameters
    metrics = (
        Metric("selected", "Particles selected", good="high", digits=0),
        Metric("selected_share", "Share selected", "%", scale=100, good="high", digits=0),
        Metric("selected_classes", "Classes selected", good="high", digits=0),
        Metric(
            "duplicates",
            "Duplicates left out",
            good="low",
            digits=0,
            description="Particles of selected classes that lie on another one after classification.",
        ),
        Metric(
            "class_score",
            "Mean class score",
            good="high",
            description="Mean score of all particles' classes: the part of them that are likely good.",
        ),
        Metric(
            "long_diameter",
            "Longest diameter",
            "Å",
            digits=0,
            description="Longest extent of the particles' density in the selected classes.",
        ),
        Metric("short_diameter", "Shortest diameter", "Å", digits=0, description="Its extent where it is narrowest."),
    )
    published = (
        Published(
            "particles_star", "whole_star", "particles_whole.star", block="particles", column="rlnMicrographName"
        ),
    )
    nodes = (
        Node("particles.star", 3, "ParticlesData.star.relion"),
        Node("class_averages.star", 5, "ImagesData.star.relion.classaverages"),
    )
    parts = CLASSES_TABLE
    pictures = (Picture("selection_image", "Classes by score; those selected are framed"),)

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for selecting by rank, or by hand where the classes were chosen by hand.

        RELION 4 and 5 refuse to rank and to re-centre at once, and RELION 3.1 knows no ranking: it shows the classes.
        """
        given = context.parameters
        by_hand = bool(given.select_classes)
        return {
            **super().relion_options(context),
            "do_class_ranker": relion_value(not by_hand),
            "rank_threshold": relion_value(float(given.select_score)),
            "do_recenter": relion_value(by_hand and given.select_recentre),
        }

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say how RELION selects differently."""
        given = context.parameters
        if given.select_classes:
            sentences = [
                f"RELION shows the classes for selection by hand; Beamside kept those numbered {given.select_classes}."
            ]
        else:
            sentences = [
                "RELION 4 and 5 rank the classes by scores of their own, and RELION 3.1 shows them for selection by hand; "
                f"Beamside kept those that it scored {given.select_score:g} or better."
            ]
            if given.select_recentre:
                sentences.append("RELION's ranking does not re-centre the averages.")
            if given.select_top:
                sentences.append(f"RELION keeps all classes that pass, not the best {given.select_top}.")
            if given.select_min_share:
                sentences.append("RELION also keeps good classes with few particles.")
        if given.select_duplicate_distance:
            sentences.append(
                f"RELION does not remove duplicates in this step; Beamside removed those within {given.select_duplicate_distance:g} Å."
            )
        return sentences

    def output_node(self, output: str, rows: Sequence[Row]) -> Node | None:
        """Return the particles, or the class averages."""
        return self.nodes[1] if output == "classes" else self.main_node(rows)
