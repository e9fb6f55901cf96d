"""The room of the electron microscope's camera: how its files are made ready for processing, and what its metadata are compared with.

The session knows none of this: kinds of source name it (`beamside.acquisition.kinds`).
"""
