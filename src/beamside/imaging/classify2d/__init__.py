"""2D classification of particles by expectation-maximisation: class averages, and each particle's class, rotation and shift.

``classify`` is the whole of it; `polar` and `expectation` explain how it works.
"""

from beamside.imaging.classify2d.engine import classify
from beamside.imaging.classify2d.model import ClassifySettings, State

__all__ = ["ClassifySettings", "State", "classify"]
