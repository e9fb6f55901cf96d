"""The project on disk: journal, index, job directories, RELION's view."""
