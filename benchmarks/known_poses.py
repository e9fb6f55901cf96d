"""Averages of particles whose views, rotations and shifts are known: the best that a classification can come to."""

from __future__ import annotations

import numpy as np
import torch

from beamside.imaging.classify2d import ClassifySettings
from beamside.imaging.classify2d.expectation import turning
from beamside.imaging.classify2d.geometry import geometry_of
from beamside.imaging.classify2d.maximisation import average
from beamside.imaging.classify2d.particles import Particles
from beamside.imaging.classify2d.polar import from_modes, shift_rings, to_modes
from beamside.imaging.classify2d.stack import ArrayStack
from beamside.simulate.particles import ParticleStack


def average_known(stack: ParticleStack, ctf: np.ndarray, settings: ClassifySettings) -> np.ndarray:
    """Return the average ``(views, b, b)`` of the particles of each view."""
    geometry = geometry_of(stack.images.shape[-1], settings, "cpu")
    particles = Particles(ArrayStack(stack.images), ctf, np.zeros(len(ctf), np.int64), geometry, keep=False)
    grid = geometry.grid
    half = grid.angles // 2
    data = torch.zeros((len(stack.views), grid.rings, half), dtype=torch.complex64)
    weights = torch.zeros((len(stack.views), grid.rings, half))
    for part in torch.split(torch.arange(len(ctf)), 200):
        chosen = part.numpy()
        transfer = particles.transfer(part, grid)
        shifted = particles.rings(part, grid) * shift_rings(grid, torch.as_tensor(-stack.shift[chosen]).float())
        for place, number in enumerate(chosen):
            psi, view = float(np.deg2rad(stack.psi[number])), int(stack.view[number])
            modes = to_modes(shifted[place] * transfer[place]) * turning(half + 1, 1, -psi, torch.device("cpu"))
            data[view] += from_modes(modes)
            power = torch.fft.rfft(transfer[place].square())
            power = power * turning(power.shape[-1], 2, -psi, torch.device("cpu"))
            weights[view] += torch.fft.irfft(power, n=half)
    halves = torch.stack([data, data]) / 2, torch.stack([weights, weights]) / 2
    return np.asarray(average(geometry, grid, *halves).images)
