"""2D classification: an aggregate of all extracted particles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from beamside.jobs.base import (
    JobType,
    Metric,
    Node,
    Picture,
    RelionContext,
    Row,
    relion_value,
)
from beamside.jobs.class_table import CLASSES_TABLE
from beamside.jobs.extract import sizes
from beamside.jobs.item_kinds import CLASSES, PARTICLES
from beamside.jobs.ports import Input, Output
from beamside.jobs.resources import Resources
from beamside.jobs.triggers import Increments
from beamside.parameters import ParameterModel, parameter


class Class2dParameters(ParameterModel):
    """Parameters of 2D classification."""

    classes: int = parameter(50, "Number of classes.", ge=1, le=500, relion="nr_classes")
    class_min: int = parameter(
        1000, "Number of particles at which classification starts.", ge=10, le=10_000_000, affects_result=False
    )
    class_increment: int = parameter(
        0,
        "Number of new particles after which classification continues; 0: the number at which it starts.",
        ge=0,
        affects_result=False,
    )
    class_mask: float = parameter(
        0.0,
        "Diameter of the circular mask; 0: 1.1 times the largest particle diameter.",
        unit="Å",
        ge=0,
        le=5000,
        advanced=True,
    )
    class_tau: float = parameter(
        2.0, "Regularisation: higher shows more detail and more noise.", gt=0, le=20, advanced=True, relion="tau_fudge"
    )
    class_iterations: int = parameter(
        25,
        "Maximum number of iterations in a round; merging the classes of one view for good takes 23 or more.",
        ge=1,
        le=200,
        advanced=True,
        relion="nr_iter",
    )
    class_seed: int = parameter(1, "Seed of the random number generator.", ge=0, advanced=True)


def mask_diameter(parameters: Class2dParameters, largest: float, box: float) -> float:
    """Return the diameter in Å of the circular mask, for particles of up to `largest` Å (0: not known) in boxes of `box` Å."""
    return min(parameters.class_mask or 1.1 * largest or box, 0.95 * box)


class Classification2d(JobType):
    """Classify all particles, continuing from the last round as more arrive."""

    name = "class2d"
    title = "2D classification"
    directory = "Class2D"
    relion_type = 8
    relion_label = "relion.class2d"
    version = "4"
    optics_used = ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast")
    inputs = (
        Input("particles", PARTICLES, takes="all", reads=("particles", "particles_star"), relion_option="fn_img"),
    )
    outputs = (Output("classes", CLASSES),)
    trigger = Increments(
        counts="extracted",
        done="classified",
        start="class_min",
        step="class_increment",
        fewest=10,
        too_few="{number} particles are too few for 2D classification; it was not run.",
    )
    work = "beamside.jobs.class2d_worker:classify_round"
    resources = Resources(gpu_memory=4.0)
    Parameters = Class2dParameters
    metrics = (
        Metric("classified", "Particles classified", good="high", digits=0),
        Metric(
            "classes_used",
            "Classes in use",
            good="high",
            digits=0,
            description="Classes with at least 0.5 % of the particles.",
        ),
        Metric("class_resolution", "Best class resolution", "Å", good="low", digits=1),
        Metric("iterations", "Iterations", digits=0, description="Iterations since the start."),
    )
    parts = CLASSES_TABLE
    pictures = (Picture("classes_image", "Class averages"),)

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for a classification of the same particles by expectation-maximisation, and for going on from the newest round."""
        return {
            **super().relion_options(context),
            "fn_cont": self._optimiser(context),
            "nr_iter_em": relion_value(context.parameters.class_iterations),
            "particle_diameter": relion_value(self._mask_diameter(context)),
        }

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say how RELION classifies differently."""
        sentences = [
            "RELION classifies all particles from scratch, with its own sampling; Beamside goes on from round to round as particles arrive."
        ]
        if done := re.search(r"_it0*(\d+)_optimiser\.star$", self._optimiser(context)):
            sentences.append(f"To continue in RELION, ask for more iterations than the {done[1]} that are done.")
        return sentences

    @staticmethod
    def _optimiser(context: RelionContext) -> str:
        """Return the file from which RELION continues: the newest round's."""
        return context.rows[-1].result.outputs.get("optimiser", "") if context.rows else ""

    @staticmethod
    def _mask_diameter(context: RelionContext) -> float:
        """Return the diameter of the mask in Å: that of the newest round, or of the first one."""
        if found := context.newest("mask_diameter"):
            return float(found)
        box, _, pixel_size = sizes(context)
        largest = context.setting("particle_diameter", (0.0, box * pixel_size))[1]
        return mask_diameter(context.parameters, largest, box * pixel_size)

    def current_nodes(self, rows: Sequence[Row]) -> tuple[Node, ...]:
        """Return the files of the newest round."""
        if not rows:
            return ()
        outputs = rows[-1].result.outputs
        kinds = (
            ("data", 3, "ParticlesData.star.relion.class2d"),
            ("model", 8, "ProcessData.star.relion.model.class2d"),
            ("optimiser", 9, "ProcessData.star.relion.optimiser.class2d"),
        )
        return tuple(Node(outputs[role].rsplit("/", 1)[-1], number, label) for role, number, label in kinds)

    def main_node(self, rows: Sequence[Row]) -> Node | None:
        """Return the newest round's model, which RELION 3.1 selects from; as it has the optimiser's table, RELION 4 and 5 do, too."""
        return next((node for node in self.current_nodes(rows) if node.file.endswith("_model.star")), None)

    def automatic(self, given: Mapping[str, Any], newest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the mask, and the particles between two rounds."""
        mask = newest.get("mask_diameter")
        found = {"class_increment": given.get("class_min"), "class_mask": mask}
        return {name: value for name, value in found.items() if value}
