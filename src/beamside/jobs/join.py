"""Joining the particles of several jobs, micrograph by micrograph."""

from __future__ import annotations

from beamside.jobs.base import Metric, Node, RelionContext
from beamside.jobs.extract import ParticleTables
from beamside.jobs.item_kinds import PARTICLES
from beamside.jobs.ports import Input, Output
from beamside.parameters import ParameterModel, parameter

PORTS = ("first", "second", "third", "fourth")


class JoinParameters(ParameterModel):
    """Parameters of joining."""

    join_duplicate_distance: float = parameter(
        30.0,
        "Of particles of one micrograph that are closer together than this, only one is kept: the one of the first input, or the better pick.",
        unit="Å",
        ge=0,
        le=10_000,
    )


class Joining(ParticleTables):
    """Put the particles of up to four jobs together, and leave out duplicates. A micrograph that one of them has given up is taken without it."""

    name = "join"
    title = "Joining particles"
    directory = "JoinStar"
    relion_type = 13
    relion_label = "relion.joinstar.particles"
    version = "1"
    optics_used = ("pixel_size", "common_pixel_size")
    inputs = tuple(
        Input(port, PARTICLES, optional=True, reads=("particles", "particles_star"), relion_option=f"fn_part{number}")
        for number, port in enumerate(PORTS, 1)
    )
    outputs = (Output("particles", PARTICLES),)
    work = "beamside.jobs.join_worker:join"
    Parameters = JoinParameters
    metrics = (
        Metric(
            "extracted", "Particles", good="high", digits=0, description="Particles of all inputs, without duplicates."
        ),
        Metric("duplicates", "Duplicates", digits=0, description="Particles that another input has, too."),
    )
    table = "join_particles.star"
    nodes = (Node("join_particles.star", 3, "ParticlesData.star.relion"),)
    fixed_options = {"do_part": "Yes"}

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say how RELION joins."""
        if not context.parameters.join_duplicate_distance:
            return []
        return [
            f"RELION's joining keeps duplicates; Beamside removed those within {context.parameters.join_duplicate_distance:g} Å."
        ]
