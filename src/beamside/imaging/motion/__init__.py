"""Motion correction: `correction` is the whole of it; the other modules are its steps."""
