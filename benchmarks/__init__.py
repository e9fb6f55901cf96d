"""Speed and accuracy beside the programs of the field: one command per table."""
