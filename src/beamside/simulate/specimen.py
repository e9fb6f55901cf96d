"""Procedural atomic models, and their projections.

A specimen is a cloud of pseudo-atoms: domains are ellipsoids packed with α-helices at 10 Å, so that projections have an outline at 50 Å,
domains at 30 Å, rods at 8–10 Å and texture at 4–6 Å, as proteins have. Weights are integrals of the electrostatic potential above that
of vitreous ice, in V Å³: a residue takes about 135 Å³ and protein is about 2.5 V above ice (Vulović et al., J. Struct. Biol. 183, 2013),
which gives about 340 V Å³ a residue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from beamside.errors import ConfigError

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

RESIDUE_WEIGHT = 340.0
HELIX_SPACING = 10.0
HELIX_RISE = 1.5
HELIX_TWIST = np.deg2rad(100.0)
ATOM_B_FACTOR = 40.0
"""Blur of a pseudo-atom, Å²: about the size of the three or four atoms that it stands for."""


@dataclass(frozen=True)
class Specimen:
    """A particle made of pseudo-atoms.

    Attributes
    ----------
    name : its name
    positions : ``(n, 3)`` x, y, z in Å from the particle's centre
    weights : ``(n,)`` integrated potential above ice, V Å³
    symmetry : ``(g, 3, 3)`` rotations that leave it as it is, the identity first
    preferred_tilts : tilt angles in degrees at which it likes to lie at the air-water interface
    """

    name: str
    positions: Array
    weights: Array
    symmetry: Array
    preferred_tilts: tuple[float, ...] = ()

    @property
    def diameter(self) -> float:
        """Diameter in Å of the sphere around the centre that holds 99.5 % of the pseudo-atoms."""
        return float(2 * np.quantile(np.linalg.norm(self.positions, axis=1), 0.995))


def rotation_from_euler(rot: npt.ArrayLike, tilt: npt.ArrayLike, psi: npt.ArrayLike) -> Array:
    """Return the rotations ``(..., 3, 3)`` that go from specimen to image for ZYZ Euler angles in degrees.

    RELION's convention (Heymann et al., J. Struct. Biol. 151, 2005): the matrix times a position (x, y, z) of the specimen gives its position
    in the image, and the projection is along z.
    """
    phi, theta, chi = (np.deg2rad(np.asarray(angle, dtype=np.float64)) for angle in (rot, tilt, psi))
    phi, theta, chi = np.broadcast_arrays(phi, theta, chi)
    return np.asarray(_about_z(chi) @ _about_y(theta) @ _about_z(phi))


def _about_z(angle: Array) -> Array:
    zero, one, cos, sin = np.zeros_like(angle), np.ones_like(angle), np.cos(angle), np.sin(angle)
    return np.stack([cos, sin, zero, -sin, cos, zero, zero, zero, one], axis=-1).reshape(*angle.shape, 3, 3)


def _about_y(angle: Array) -> Array:
    zero, one, cos, sin = np.zeros_like(angle), np.ones_like(angle), np.cos(angle), np.sin(angle)
    return np.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], axis=-1).reshape(*angle.shape, 3, 3)


def random_eulers(count: int, rng: np.random.Generator) -> Array:
    """Return `count` orientations, uniform over all rotations, as ``(count, 3)`` rot, tilt, psi in degrees."""
    rot = rng.uniform(-180, 180, count)
    tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, count)))
    return np.stack([rot, tilt, rng.uniform(-180, 180, count)], axis=1)


def random_rotations(count: int, rng: np.random.Generator) -> Array:
    """Return `count` rotations ``(count, 3, 3)``, uniform over all rotations."""
    return rotation_from_euler(*random_eulers(count, rng).T)


def oriented_eulers(specimen: Specimen, count: int, preferred: float, rng: np.random.Generator) -> Array:
    """Return `count` orientations ``(count, 3)`` in degrees, a fraction `preferred` of them near the specimen's preferred tilts (5° sd)."""
    eulers = random_eulers(count, rng)
    chosen = rng.uniform(size=count) < preferred
    jitter = rng.normal(0, 5, count)
    if specimen.preferred_tilts:
        eulers[chosen, 1] = (rng.choice(np.array(specimen.preferred_tilts), count) + jitter)[chosen]
    return eulers


def view_directions(specimen: Specimen, count: int) -> Array:
    """Return `count` well separated views ``(count, 2)``, rot and tilt in degrees, none a symmetry copy of another.

    Farthest-point sampling of a Fibonacci sphere, starting from the view along z.
    """
    number = 4000
    index = np.arange(number)
    height = 1 - (2 * index + 1) / number
    azimuth = index * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    candidates = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=1)
    candidates[0] = 0, 0, 1
    closest = np.full(number, -np.inf)
    chosen = [0]
    for _ in range(count):
        copies = specimen.symmetry @ candidates[chosen[-1]]
        closest = np.maximum(closest, (candidates @ copies.T).max(axis=1))
        chosen.append(int(np.argmin(closest)))
    views = candidates[chosen[:count]]
    return np.column_stack(
        [np.rad2deg(np.arctan2(views[:, 1], views[:, 0])), np.rad2deg(np.arccos(np.clip(views[:, 2], -1, 1)))]
    )


def splat(points: Array, weights: Array, shape: tuple[int, int]) -> Image:
    """Sum point weights into a grid of `shape` by bilinear interpolation; points ``(n, 2)`` are y, x in pixels, those outside are left out."""
    corner = np.floor(points).astype(np.int64)
    inside = ((corner >= 0) & (corner < np.array(shape) - 1)).all(axis=1)
    corner, fraction, weights = corner[inside], (points - np.floor(points))[inside], weights[inside]
    (fy, fx), base = fraction.T, corner[:, 0] * shape[1] + corner[:, 1]
    offsets = ((0, (1 - fy) * (1 - fx)), (1, (1 - fy) * fx), (shape[1], fy * (1 - fx)), (shape[1] + 1, fy * fx))
    indices = np.concatenate([base + offset for offset, _ in offsets])
    values = np.concatenate([weights * share for _, share in offsets])
    return np.bincount(indices, values, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)


def atom_filter(shape: tuple[int, int], spacing: float) -> Image:
    """Return the Fourier factor ``(h, w // 2 + 1)`` that makes pseudo-atoms of splatted points: their own blur instead of the splatting's."""
    fy = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    falloff = np.float32(ATOM_B_FACTOR / (4 * spacing**2))

    def along(frequency: Image) -> Image:
        return np.asarray(np.exp(-falloff * frequency**2) / np.sinc(frequency) ** 2, dtype=np.float32)

    return along(fy) * along(fx)


def project(
    specimen: Specimen,
    rotations: Array,
    pixel_size: float,
    box: int,
    shifts: Array | float = 0.0,
    oversampling: int = 2,
) -> Image:
    """Project the specimen's potential.

    Parameters
    ----------
    rotations : ``(n, 3, 3)``, from the specimen to the image
    pixel_size : Å
    box : width of the images in pixels, even; the particle's centre is at pixel ``box // 2``
    shifts : where the centre is, relative to the middle: ``(n, 2)`` y, x in pixels
    oversampling : the atoms are drawn on a grid this much finer, and the image is cut out of its spectrum

    Returns
    -------
    float32 ``(n, box, box)``: projected potential above ice in V Å, protein positive
    """
    fine, spacing = box * oversampling, pixel_size / oversampling
    offsets = np.broadcast_to(np.asarray(shifts, dtype=np.float64), (len(rotations), 2))
    factor = atom_filter((fine, fine), spacing)[_kept_rows(fine, box), : box // 2 + 1]
    factor = factor / (spacing**2 * oversampling**2)
    factor[box // 2] = 0
    factor[:, box // 2] = 0
    images = np.empty((len(rotations), box, box), dtype=np.float32)
    for image, rotation, offset in zip(images, rotations, offsets, strict=True):
        plane = specimen.positions @ rotation[:2].T
        points = plane[:, ::-1] / spacing + (box // 2 + offset) * oversampling
        spectrum = scipy.fft.rfft2(splat(points, specimen.weights, (fine, fine)))
        image[:] = scipy.fft.irfft2(spectrum[_kept_rows(fine, box), : box // 2 + 1] * factor, s=(box, box))
    return images


def _kept_rows(size: int, kept: int) -> npt.NDArray[np.int64]:
    """Return the rows of a spectrum of `size` that stay when it is cut to `kept` (even)."""
    return np.concatenate([np.arange(kept // 2), np.arange(size - kept // 2, size)])


# --- building the specimens


def _helix_bundle(centre: Array, axes: Array, frame: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Pack an ellipsoid with helices along its third axis: positions ``(n, 3)`` and weights ``(n,)``.

    `axes` are the half axes in Å, `frame` ``(3, 3)`` has the directions of the axes as columns.
    """
    parts = []
    reach = int(np.ceil(max(axes[:2]) / HELIX_SPACING)) + 1
    phase = rng.uniform(0, 1, 2)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            x = (column + 0.5 * (row % 2) + phase[0] - 0.5) * HELIX_SPACING
            y = (row + phase[1] - 0.5) * HELIX_SPACING * np.sqrt(0.75)
            inside = 1 - (x / axes[0]) ** 2 - (y / axes[1]) ** 2
            half = axes[2] * np.sqrt(max(inside, 0.0))
            if half > 5:
                parts.append(_helix(np.array([x, y]), half, rng))
    local = np.concatenate(parts)
    weights = np.tile([0.55, 0.45], len(local) // 2) * RESIDUE_WEIGHT * rng.uniform(0.5, 1.5, len(local))
    return centre + local @ frame.T, weights


def _helix(foot: Array, half: float, rng: np.random.Generator) -> Array:
    """Return a helix along z from about ``-half`` to ``half`` through `foot`: backbone and side chain of each residue in turn, ``(2 n, 3)``."""
    height = np.arange(-half + rng.uniform(0, 3), half, HELIX_RISE)
    angle = height / HELIX_RISE * HELIX_TWIST + rng.uniform(0, 2 * np.pi)
    lean = rng.normal(0, 0.15, 2)
    axis = foot + height[:, None] * lean
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    backbone = np.column_stack([axis + 2.3 * direction, height])
    side = np.column_stack([axis + rng.uniform(3.5, 6.5, (len(height), 1)) * direction, height - 0.8])
    side += rng.normal(0, 0.6, side.shape)
    return np.stack([backbone, side], axis=1).reshape(-1, 3)


def _domains(ellipsoids: list[tuple[Array, Array]], rng: np.random.Generator) -> tuple[Array, Array]:
    """Fill ellipsoids, each a centre and half axes in Å, with helix bundles of random direction."""
    positions, weights = [], []
    for centre, axes in ellipsoids:
        order = rng.permutation(3)
        frame = np.eye(3)[:, order]
        part, weight = _helix_bundle(centre, axes[order], frame, rng)
        positions.append(part)
        weights.append(weight)
    return np.concatenate(positions), np.concatenate(weights)


def _symmetrise(positions: Array, weights: Array, group: Array) -> tuple[Array, Array]:
    return np.concatenate([positions @ rotation.T for rotation in group]), np.tile(weights, len(group))


def _dihedral(order: int) -> Array:
    turns = _about_z(np.arange(order) * 2 * np.pi / order)
    return np.concatenate([turns, turns @ np.diag([1.0, -1.0, -1.0])])


def _octahedral() -> Array:
    """Return the 24 rotations of the octahedron: signed permutations of the axes with determinant 1."""
    signs = np.array([[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)], dtype=np.float64)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    matrices = np.array([np.eye(3)[list(order)] * sign for order in orders for sign in signs])
    return np.asarray(matrices[np.linalg.det(matrices) > 0])


def _centred(name: str, positions: Array, weights: Array, symmetry: Array, tilts: tuple[float, ...] = ()) -> Specimen:
    centre = weights @ positions / weights.sum()
    return Specimen(name, positions - centre, weights, symmetry, tilts)


def _barrel() -> Specimen:
    """Return a chaperonin-like barrel: two back-to-back rings of seven subunits, D7, 150 Å high, 145 Å wide, with an open channel."""
    rng = np.random.default_rng(7)
    lower = (np.array([46.0, 2.0, 19.0]), np.array([20.0, 19.0, 18.0]))
    neck = (np.array([50.0, 5.0, 38.0]), np.array([14.0, 15.0, 14.0]))
    upper = (np.array([49.0, -2.0, 57.0]), np.array([22.0, 19.0, 17.0]))
    positions, weights = _domains([lower, neck, upper], rng)
    group = _dihedral(7)
    return _centred("barrel", *_symmetrise(positions, weights, group), group, (0.0, 90.0))


def _asymmetric() -> Specimen:
    """Return a body with three unequal arms, without symmetry, 190 Å long."""
    rng = np.random.default_rng(11)
    body = (np.array([0.0, -5.0, 0.0]), np.array([32.0, 28.0, 33.0]))
    left = (np.array([-35.0, 32.0, 7.0]), np.array([27.0, 25.0, 21.0]))
    left_tip = (np.array([-56.0, 58.0, -5.0]), np.array([19.0, 22.0, 19.0]))
    right = (np.array([36.0, 28.0, -11.0]), np.array([24.0, 22.0, 29.0]))
    foot = (np.array([5.0, -46.0, 5.0]), np.array([22.0, 29.0, 23.0]))
    toe = (np.array([23.0, -72.0, 18.0]), np.array([27.0, 17.0, 18.0]))
    knob = (np.array([-6.0, 4.0, 42.0]), np.array([21.0, 18.0, 24.0]))
    positions, weights = _domains([body, left, left_tip, right, foot, toe, knob], rng)
    return _centred("asymmetric", positions, weights, np.eye(3)[None])


def _shell() -> Specimen:
    """Return a ferritin-like hollow sphere: 24 four-helix bundles, octahedral, 125 Å wide."""
    rng = np.random.default_rng(24)
    outward = np.array([0.80, 0.52, 0.30])
    outward /= np.linalg.norm(outward)
    along = np.cross(outward, [0.2, -0.5, 1.0])
    along /= np.linalg.norm(along)
    frame = np.stack([np.cross(along, outward), outward, along], axis=1)
    positions, weights = _helix_bundle(50.0 * outward, np.array([13.0, 11.5, 25.0]), frame, rng)
    group = _octahedral()
    return _centred("shell", *_symmetrise(positions, weights, group), group)


_BUILDERS: dict[str, Callable[[], Specimen]] = {"barrel": _barrel, "asymmetric": _asymmetric, "shell": _shell}
SPECIMENS = tuple(_BUILDERS)
"""Names of the specimens that `make_specimen` knows."""


@cache
def make_specimen(name: str = "barrel") -> Specimen:
    """Return the specimen called `name`; the same one each time.

    Raises
    ------
    ConfigError
        when there is no such specimen.
    """
    if name not in _BUILDERS:
        raise ConfigError(f"There is no specimen called {name!r}; choose one of {', '.join(SPECIMENS)}.")
    return _BUILDERS[name]()
