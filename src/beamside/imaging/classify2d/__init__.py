"""2D classification of particles by expectation-maximisation: class averages, and each particle's class, rotation and shift.

``classify`` is the whole of it; `polar` and `expectation` explain how it works, `plan` in which order, `shards` how workers share it, and `classes`
how many classes are left.
"""

from beamside.imaging.classify2d.engine import classify
from beamside.imaging.classify2d.model import ClassifySettings, State
from beamside.imaging.classify2d.stack import FileStack, ImageStack, file_stack

__all__ = ["ClassifySettings", "FileStack", "ImageStack", "State", "classify", "file_stack"]
