"""What the report lists of each 2D class, after classification or after selection."""

from __future__ import annotations

from beamside.jobs.base import Metric, Parts

CLASSES_TABLE = Parts(
    "class_table",
    "Class",
    "Classes",
    (
        Metric("particles", "Particles", digits=0),
        Metric("weight", "Share", "%", scale=100, digits=1),
        Metric("resolution", "Resolution", "Å", digits=1),
        Metric("score", "Class score (0 to 1)"),
        Metric("kept", "Selected"),
        Metric("long", "Long axis", "Å", digits=0),
        Metric("short", "Short axis", "Å", digits=0),
    ),
    counted="particles",
    order=("score", "particles"),
)
