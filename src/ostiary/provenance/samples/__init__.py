"""Data sets sample by sample: a manifest of what each one is, proofs, differences, and which models learnt from it."""
