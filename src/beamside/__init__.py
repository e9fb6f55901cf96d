"""Beamside: from a microscope's output folder to trustworthy live feedback and analysis-ready data."""

__version__ = "0.2.0"
