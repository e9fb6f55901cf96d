"""Gain references: correcting frames, which way round a reference lies, and whether movies need one."""
