"""Picking particles: `blobs` from a range of diameters, `templates` with references; both give `candidates`."""
