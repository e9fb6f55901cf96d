"""The kinds of items in single-particle work, each with what whoever makes it must give."""

from __future__ import annotations

from beamside.jobs.ports import ItemKind

MOVIE = ItemKind(
    "movie",
    "Movies",
    files={"movie": "the frames as the camera wrote them"},
    values={"frames": "their number", "shape": "rows and columns, px"},
)
MICROGRAPH = ItemKind(
    "micrograph",
    "Micrographs",
    files={"micrograph": "the image, MRC"},
    values={"shape": "rows and columns, px"},
)
"""Its pixel size is in ``pixel_size`` (Å) where it is not that of the session's optics."""
FITTED_MICROGRAPH = ItemKind(
    "micrograph_ctf",
    "Micrographs with CTF",
    values={
        "micrograph_pixel_size": "Å",
        "defocus_u": "Å",
        "defocus_v": "Å",
        "defocus_angle": "°",
    },
    metrics={"ctf_resolution": "how far the fit holds, Å"},
    base=MICROGRAPH,
)
COORDINATES = ItemKind(
    "coordinates",
    "Coordinates",
    files={"coordinates": "the positions of particles, STAR"},
    values={"max_diameter": "the largest diameter of the particles, Å"},
    metrics={"particles": "how many there are"},
)
PARTICLES = ItemKind(
    "particles",
    "Particles",
    files={"particles": "the images, MRCS", "particles_star": "a row for each, STAR"},
    values={"image_pixel_size": "Å", "image_size": "px"},
    metrics={"extracted": "how many there are"},
    counted="extracted",
)
CLASSES = ItemKind(
    "classes",
    "Classes",
    files={"classes": "the averages, MRCS", "data": "the class of each particle, STAR", "model": "the classes, STAR"},
    metrics={"classified": "the number of particles"},
)
AVERAGES = ItemKind(
    "class_averages",
    "Class averages",
    files={"averages": "the images, protein white, the best first, MRCS"},
    counted="selected_classes",
)
"""Where no class was good enough, there is nothing."""
SELECTION = ItemKind(
    "selection",
    "Selected particles",
    files={"particles_star": "the particles that are kept, STAR"},
    metrics={"selected": "how many there are"},
)
