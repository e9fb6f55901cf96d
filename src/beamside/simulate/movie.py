"""Movies of a simulated microscope, with the truth about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beamside.errors import ConfigError, CorruptFileError
from beamside.simulate.counting import PoissonCounter
from beamside.simulate.displacement import Displacement, random_displacement
from beamside.simulate.gain import GainReference, gain_reference
from beamside.simulate.optics import Beam, Defocus, Tilt
from beamside.simulate.particles import random_defocus
from beamside.simulate.scene import OVERSAMPLING, Contents, Sample, Scene, arrange
from beamside.simulate.specimen import Specimen, make_specimen

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

HOT_RATE = 25.0
"""Counts of a hot pixel in a frame."""
DOSE_STEP = 7.0
"""Radiation damage is computed at doses this far apart, in e/Å², and taken linear in between (error below 4 % of the signal at 5 Å)."""
STRIP = 64
"""Rows drawn at a time, so that all that belongs to them stays in the processor's cache."""


@dataclass(frozen=True)
class MovieSettings:
    """How a movie is taken, and of what.

    Attributes
    ----------
    size : height and width in pixels
    frames : number of frames
    pixel_size : Å
    dose_per_frame : e/Å²
    voltage, spherical_aberration, amplitude_contrast : kV, mm, fraction
    phase_shift : of a phase plate, degrees
    tilt_angle, tilt_axis : of the specimen, degrees; see `beamside.simulate.optics.Tilt`
    defocus : lowest and highest mean defocus, Å
    astigmatism : largest difference of defocus, Å
    b_factor : envelope of the microscope, Å²
    drift : typical drift over the exposure, Å
    local_motion : root mean square over the field of the local motion by the last frame, Å
    local_family : "bumps", a smooth field that is no polynomial, or "polynomial", as in RELION's motion model
    jitter : standard deviation of each frame's own shift, Å
    particle_spacing : one particle for each square of this width, Å; 0 for none
    preferred_orientation : fraction of particles that lie in one of the specimen's preferred orientations
    ice_thickness : Å
    contamination : ice crystals per µm² × 100 (that is, per 1,000 Å × 1,000 Å)
    carbon : fraction of the field on the carbon film
    jump : a frame before which the whole field jumps by 15 Å; 0 for none
    gain_seed : which gain reference the camera has
    """

    size: tuple[int, int] = (1536, 1536)
    frames: int = 40
    pixel_size: float = 1.3
    dose_per_frame: float = 1.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift: float = 0.0
    tilt_angle: float = 0.0
    tilt_axis: float = 0.0
    defocus: tuple[float, float] = (8000.0, 25000.0)
    astigmatism: float = 400.0
    b_factor: float = 100.0
    drift: float = 9.0
    local_motion: float = 3.0
    local_family: str = "bumps"
    jitter: float = 0.25
    particle_spacing: float = 260.0
    preferred_orientation: float = 0.6
    ice_thickness: float = 350.0
    contamination: float = 0.4
    carbon: float = 0.0
    jump: int = 0
    gain_seed: int = 1

    def __post_init__(self) -> None:
        if min(self.size) < 64 or self.frames < 1:
            raise ConfigError(
                f"A movie of {self.size[0]} × {self.size[1]} pixels and {self.frames} frames is too small; take 64 pixels and 1 frame or more."
            )
        if self.pixel_size <= 0 or self.dose_per_frame <= 0:
            raise ConfigError("Pixel size and dose per frame of a simulated movie must be above 0.")
        if not abs(self.tilt_angle) <= 75:
            raise ConfigError(f"A specimen tilted by {self.tilt_angle} degrees cannot be simulated; take 75 or less.")

    @property
    def beam(self) -> Beam:
        """The microscope's optics."""
        return Beam(self.voltage, self.spherical_aberration, self.amplitude_contrast, self.phase_shift)

    @property
    def sample(self) -> Sample:
        """The sample's properties."""
        return Sample(
            self.particle_spacing, self.preferred_orientation, self.ice_thickness, self.contamination, self.carbon
        )


@dataclass(frozen=True)
class MovieTruth:
    """All that is true about a movie; positions are in pixels (y, x) of the first frame, where the displacement is zero.

    Attributes
    ----------
    settings, seed : what it was made from
    specimen : name of the specimen
    defocus : Å and degrees
    contents : particles, contaminants, hole
    motion : displacement of the specimen
    """

    settings: MovieSettings
    seed: int
    specimen: str
    defocus: Defocus
    contents: Contents
    motion: Displacement

    def displacement(self, points: npt.ArrayLike) -> Array:
        """Return the displacement ``(frames, m, 2)`` (y, x) in pixels of the specimen at `points` ``(m, 2)`` (y, x) in the first frame.

        A perfect motion correction has shifts (RELION's sign) of minus this, up to a constant.
        """
        return self.motion.at(points)

    @property
    def particles(self) -> Array:
        """Particles ``(n, 5)``: y, x in pixels, rot, tilt, psi in degrees."""
        return self.contents.particles

    @property
    def contaminants(self) -> Array:
        """Ice crystals ``(m, 3)``: y, x, radius in pixels."""
        return self.contents.contaminants

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "settings": asdict(self.settings),
            "seed": self.seed,
            "specimen": self.specimen,
            "defocus": asdict(self.defocus),
            "particles": np.round(self.contents.particles, 4).tolist(),
            "contaminants": np.round(self.contents.contaminants, 4).tolist(),
            "hole": self.contents.hole,
            "motion": self.motion.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MovieTruth:
        """Make the truth from its JSON form."""
        given = data["settings"]
        settings = {field.name: given[field.name] for field in fields(MovieSettings) if field.name in given}
        for name in ("size", "defocus"):
            settings[name] = tuple(settings[name])
        contents = Contents(
            np.array(data["particles"], dtype=np.float64).reshape(-1, 5),
            np.array(data["contaminants"], dtype=np.float64).reshape(-1, 3),
            tuple(data["hole"]) if data["hole"] else None,
        )
        motion = Displacement.from_json(data["motion"])
        return cls(
            MovieSettings(**settings), data["seed"], data["specimen"], Defocus(**data["defocus"]), contents, motion
        )

    def save(self, path: Path) -> None:
        """Write the truth as a JSON file, which appears whole or not at all."""
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(json.dumps(self.to_json()), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> MovieTruth:
        """Read the truth from a JSON file.

        Raises
        ------
        CorruptFileError
            when the file is not such a truth.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(
                f"{path} does not hold the truth about a simulated movie ({error}); simulate the movie again."
            ) from error


@dataclass(frozen=True)
class Movie:
    """A movie: `counts` uint8 ``(frames, h, w)`` without gain correction, the truth, and the camera's gain reference."""

    counts: npt.NDArray[np.uint8]
    truth: MovieTruth
    gain: GainReference


def draw_truth(settings: MovieSettings, specimen: Specimen, seed: int) -> MovieTruth:
    """Draw what is true about the movie of this seed, without drawing the movie."""
    motion_rng, content_rng, optics_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2, 3))
    drift, local, jitter = (
        length / settings.pixel_size for length in (settings.drift, settings.local_motion, settings.jitter)
    )
    motion = random_displacement(
        settings.frames, settings.size, drift, local, jitter, motion_rng, settings.local_family
    )
    if settings.jump:
        angle = motion_rng.uniform(0, 2 * np.pi)
        motion.drift[settings.jump :] += 15 / settings.pixel_size * np.array([np.sin(angle), np.cos(angle)])
    contents = arrange(settings.sample, specimen, settings.size, settings.pixel_size, content_rng)
    defocus = random_defocus(optics_rng, *settings.defocus, settings.astigmatism)
    truth = MovieTruth(settings, seed, specimen.name, defocus, contents, motion)
    return MovieTruth.from_json(truth.to_json())


def simulate_movie(
    settings: MovieSettings, specimen: Specimen | None = None, seed: int = 0, gain: GainReference | None = None
) -> Movie:
    """Simulate a movie; the same arguments give the same counts.

    Parameters
    ----------
    settings : how and of what
    specimen : the barrel when not given
    gain : the camera's gain reference; made from ``settings.gain_seed`` when not given
    """
    specimen = specimen or make_specimen()
    gain = gain or gain_reference(settings.size, settings.gain_seed)
    if gain.gain.shape != settings.size:
        raise ConfigError(
            f"The gain reference has {gain.gain.shape} pixels and the movie {settings.size}; make them equal."
        )
    truth = draw_truth(settings, specimen, seed)
    counts = np.empty((settings.frames, *settings.size), dtype=np.uint8)
    rate = (settings.dose_per_frame * settings.pixel_size**2 / gain.gain).astype(np.float32)
    rate[gain.dead[:, 0], gain.dead[:, 1]] = 0
    # contrast is rarely above 0.35, and counts of brighter pixels are clipped to the table's last rate
    counter = PoissonCounter(float(rate.max()) * 1.5)
    for frame, weight, pair in _exposures(_scene(truth, specimen), settings):
        rng = np.random.default_rng([seed, 5, frame])
        _expose(
            counts[frame],
            rate,
            pair,
            weight,
            truth.motion.strips(frame, settings.size, STRIP),
            counter,
            rng,
            pair_margin(truth),
        )
        counts[frame, gain.hot[:, 0], gain.hot[:, 1]] = rng.poisson(HOT_RATE, len(gain.hot))
    return Movie(counts, truth, gain)


def simulate_micrograph(
    settings: MovieSettings, specimen: Specimen | None = None, seed: int = 0
) -> tuple[Image, MovieTruth]:
    """Simulate what a perfect motion correction would make of the movie of this seed: float32 ``(h, w)``, counts per pixel of the whole exposure.

    Gain and defects are corrected, motion is none, dose weighting is not done. Much faster than a movie.
    """
    specimen = specimen or make_specimen()
    truth = draw_truth(settings, specimen, seed)
    margin, (height, width) = pair_margin(truth), settings.size
    expected = np.zeros(settings.size, dtype=np.float32)
    window = (slice(margin * OVERSAMPLING, None, OVERSAMPLING),) * 2
    for _, weight, pair in _exposures(_scene(truth, specimen), settings):
        seen = pair[window][:height, :width]
        expected += 1 + seen.real * np.float32(1 - weight) + seen.imag * np.float32(weight)
    expected *= np.float32(settings.dose_per_frame * settings.pixel_size**2)
    counts = np.random.default_rng([seed, 6]).poisson(np.maximum(expected, 0))
    return counts.astype(np.float32), truth


def pair_margin(truth: MovieTruth) -> int:
    """Return the pixels around the field that motion can bring into view."""
    return int(truth.motion.largest(truth.settings.size)) + 16


def _scene(truth: MovieTruth, specimen: Specimen) -> Scene:
    settings = truth.settings
    return Scene(
        truth.contents,
        specimen,
        settings.sample,
        settings.size,
        settings.pixel_size,
        pair_margin(truth),
        truth.defocus,
        settings.beam,
        settings.b_factor,
        np.random.default_rng([truth.seed, 4]),
        Tilt(settings.tilt_angle, settings.tilt_axis),
    )


def _exposures(scene: Scene, settings: MovieSettings) -> Iterator[tuple[int, float, npt.NDArray[np.complex64]]]:
    """Yield each frame, the weight of the second of a pair of contrasts, and the pair: the real part at a dose below, the imaginary part above."""
    total = settings.frames * settings.dose_per_frame
    steps = max(1, round(total / DOSE_STEP))
    pair = np.empty(tuple(size * OVERSAMPLING for size in scene.shape), dtype=np.complex64)
    upper = -1
    for frame in range(settings.frames):
        position = (frame + 0.5) * settings.dose_per_frame / total * steps
        step = min(int(position), steps - 1)
        if step + 1 != upper:
            pair.real = pair.imag if step == upper else scene.contrast(step * total / steps)
            upper = step + 1
            pair.imag = scene.contrast(upper * total / steps)
        yield frame, position - step, pair


def _expose(
    counts: npt.NDArray[np.uint8],
    rate: Image,
    pair: npt.NDArray[np.complex64],
    weight: float,
    strips: Iterator[tuple[slice, Image, Image]],
    counter: PoissonCounter,
    rng: np.random.Generator,
    margin: int,
) -> None:
    """Count a frame's electrons.

    A pixel at r shows the specimen at r - displacement. Positions on the fine grid are rounded at random, up or down, so that on average this is
    a linear interpolation there.
    """
    width = rate.shape[1]
    fine = np.float32(OVERSAMPLING)
    flat, stride = pair.reshape(-1), pair.shape[1]
    columns = (np.arange(width, dtype=np.float32) + np.float32(margin)) * fine
    for part, *displacement in strips:
        rows = (np.arange(part.start, part.stop, dtype=np.float32)[:, None] + np.float32(margin)) * fine
        # eight random bytes a pixel: two round the position, one the rate, two draw the count
        random = (
            rng.integers(0, 1 << 64, (part.stop - part.start, width), dtype=np.uint64)
            .view(np.uint8)
            .reshape(-1, width, 8)
        )
        y, x = (values * -fine + random[..., axis] * np.float32(1 / 256) for axis, values in enumerate(displacement))
        index = (y + rows).astype(np.int64)
        index *= stride
        index += (x + columns).astype(np.int64)
        seen = np.take(flat, index, mode="clip")
        expected = seen.real * np.float32(1 - weight) + seen.imag * np.float32(weight)
        expected += 1
        expected *= rate[part]
        counts[part] = counter.draw(expected, random[..., 2], random[..., 4:6].view(np.uint16)[..., 0])
