"""Models: reading checkpoints without running code, a wrapper with logits and features, a small zoo."""
