"""Neutral tools that change inputs; they know of no attack and no defence."""

from ostiary.perturb.stamp import stamp

__all__ = ["stamp"]
