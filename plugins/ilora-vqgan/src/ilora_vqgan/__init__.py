"""VQGAN with its transformer prior as an intrinsic generator: cards and hooks only."""
