"""Transfer learning: what of a network is trained, how fast, from which epoch on, and the proof that the rest stays."""
