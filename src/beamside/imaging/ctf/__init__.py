"""CTF estimation: `estimation` is the whole of it; `limits` needs no torch."""
