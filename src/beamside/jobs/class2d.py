"""2D classification: an aggregate of all extracted particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beamside.jobs.base import Item, JobType, Metric, Node, Optics, Picture, Result, Row, StarContent, Workspace
from beamside.parameters import ParameterModel, parameter


class Class2dParameters(ParameterModel):
    """Parameters of 2D classification."""

    classes: int = parameter(50, "Number of classes.", ge=1, le=500, relion="nr_classes")
    class_min: int = parameter(
        1000, "Number of particles at which classification starts.", ge=10, le=10_000_000, affects_result=False
    )
    class_increment: int = parameter(
        0,
        "Further particles after which classification continues; 0 takes the number at which it starts.",
        ge=0,
        affects_result=False,
    )
    class_mask: float = parameter(
        0.0,
        "Diameter of the circular mask; 0 takes 1.1 times the largest particle diameter.",
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
        "Most iterations of a round; it takes 23 or more to merge the classes of one view for good.",
        ge=1,
        le=200,
        advanced=True,
        relion="nr_iter",
    )
    class_seed: int = parameter(1, "Seed of the random numbers.", ge=0, advanced=True)


class Classification2d(JobType):
    """Classify all particles, continuing from the last round as more arrive."""

    name = "class2d"
    title = "2D classification"
    directory = "Class2D"
    relion_type = 8
    relion_label = "relion.class2d"
    version = "4"
    optics_used = ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast")
    requires = ("extract",)
    aggregate = True
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
    pictures = (Picture("classes_image", "Class averages"),)
    reads = ("particles", "particles_star")
    inputs = ("extract",)
    input_options = ("fn_img",)
    fixed_options = {"do_ctf_correction": "Yes", "do_zero_mask": "Yes", "dont_skip_align": "Yes", "psi_sampling": "6"}

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
        """Return the newest round's optimiser file, which names all the others."""
        return next(reversed(self.current_nodes(rows)), None)

    def automatic(self, settings: Mapping[str, Any], newest: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the mask, and the particles between two rounds."""
        mask = newest.get("class2d", {}).get("mask_diameter")
        return {"class_increment": settings["class_min"], **({"class_mask": mask} if mask else {})}

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return nothing: each round writes its own files."""
        return {}

    def update(
        self, items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool
    ) -> Result:
        """Classify the particles of `items`."""
        from beamside.jobs.class2d_worker import classify_round

        return classify_round(items, parameters, workspace, round_name=round_name, final=final)
