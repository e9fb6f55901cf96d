"""Fourier transforms at any points, by way of a finer grid and a short window.

An image that is zero outside of its box is divided by the transform of a window and transformed to the points of a grid twice as fine as its own
frequencies; the value at any other point is then the sum over the few grid points around it, weighted by the window. With a Kaiser-Bessel window of
seven points the error is that of single precision. (Fessler & Sutton, IEEE Trans. Signal Process. 51, 2003; Beatty, Nishimura & Pauly, IEEE Trans.
Med. Imaging 24, 2005, whose β this is.) The grid is reached by a matrix product along each axis rather than by an FFT: only the part is made that
the points need, which is small while comparison is coarse, and even the whole takes no longer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_FINER = 2
_WIDTH = 7
"""Points of the finer grid, along each axis, that a value is made of."""
_BETA = math.pi * math.sqrt((_WIDTH / _FINER * (_FINER - 0.5)) ** 2 - 0.8)
_CHUNK_VALUES = 8_000_000
"""Grid points of the images that are transformed at a time."""


class GriddedTransform:
    """The transform from images ``(n, b, b)`` to values at given points, and its adjoint.

    Parameters
    ----------
    box : b
    ky, kx : ``(p,)`` float64, in Fourier pixels (cycles per box)
    """

    def __init__(self, box: int, ky: Tensor, kx: Tensor) -> None:
        self.box = box
        self.points = len(ky)
        rows, row_weights, self._y = _axis(box, ky)
        columns, column_weights, self._x = _axis(box, kx)
        self._shape = len(self._y), len(self._x)
        self._nodes = (rows[:, :, None] * len(self._x) + columns[:, None, :]).reshape(self.points, -1)
        self._weights = (row_weights[:, :, None] * column_weights[:, None, :]).reshape(self.points, -1).float()
        # the same pairs of points and nodes in the order of the nodes
        order = torch.argsort(self._nodes.reshape(-1), stable=True)
        self._points_of_nodes, self._weights_of_nodes = order // _WIDTH**2, self._weights.reshape(-1)[order]
        counts = torch.bincount(self._nodes.reshape(-1), minlength=math.prod(self._shape))
        self._starts = counts.cumsum(0) - counts

    def forward(self, images: Tensor) -> Tensor:
        """Return ``Σ image exp(-2πi k·x / b)`` ``(n, p)``, with x from pixel ``b // 2``."""
        values = torch.empty((len(images), self.points), dtype=torch.complex64, device=images.device)
        for part, target in zip(self._split(images), self._split(values), strict=True):
            lines = torch.complex(part @ self._x.real.T, part @ self._x.imag.T)
            nodes = (self._y @ lines).reshape(len(part), -1)
            columns = torch.view_as_real(nodes.T.contiguous()).reshape(len(self._starts), -1)
            found = embedding_bag(self._nodes, columns, mode="sum", per_sample_weights=self._weights)
            target.copy_(torch.view_as_complex(found.reshape(self.points, len(part), 2)).T)
        return values

    def adjoint(self, values: Tensor) -> Tensor:
        """Return the real part of ``Σ value exp(2πi k·x / b)`` ``(n, b, b)`` for `values` ``(n, p)``."""
        images = torch.empty((len(values), self.box, self.box), device=values.device)
        both = torch.cat([self._y.real, self._y.imag]).T
        for part, target in zip(self._split(values), self._split(images), strict=True):
            columns = torch.view_as_real(part.T.contiguous()).reshape(self.points, -1)
            nodes = embedding_bag(
                self._points_of_nodes, columns, self._starts, mode="sum", per_sample_weights=self._weights_of_nodes
            )
            plane = torch.view_as_complex(nodes.reshape(-1, len(part), 2)).T.reshape(len(part), *self._shape)
            lines = plane @ self._x.conj()
            torch.matmul(both, torch.cat([lines.real, lines.imag], dim=1), out=target)
        return images

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return torch.split(values, max(1, _CHUNK_VALUES // math.prod(self._shape)))


def _axis(box: int, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what one axis has for points at `positions` ``(p,)`` Fourier pixels.

    The numbers ``(p, w)`` of the nodes around each point, the window's values there, and the matrix ``(nodes, b)`` that transforms pixels to nodes.
    """
    first = torch.ceil(positions * _FINER - _WIDTH / 2)
    near = first[:, None] + torch.arange(_WIDTH, dtype=torch.float64, device=positions.device)
    inside = (1 - (2 * (near - positions[:, None] * _FINER) / _WIDTH).square()).clamp(min=0)
    weights = torch.special.i0(_BETA * inside.sqrt()) / _WIDTH
    lowest, highest = int(near.min()), int(near.max())
    pixels = torch.arange(box, dtype=torch.float64, device=positions.device) - box // 2
    frequencies = torch.arange(lowest, highest + 1, dtype=torch.float64, device=positions.device) / (_FINER * box)
    phases = -2 * math.pi * frequencies[:, None] * pixels
    flat = 1 / _window_transform(pixels / (_FINER * box))
    return near.long() - lowest, weights, torch.polar(flat.expand_as(phases).contiguous(), phases).to(torch.complex64)


def _window_transform(frequencies: Tensor) -> Tensor:
    """Return the window's Fourier transform at `frequencies`, cycles per node; it is above zero at all that are asked for."""
    argument = torch.sqrt(_BETA**2 - (math.pi * _WIDTH * frequencies).square())
    return torch.sinh(argument) / argument
