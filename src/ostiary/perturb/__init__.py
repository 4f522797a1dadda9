"""Neutral tools that change inputs; they know of no attack and no defence."""

from ostiary.perturb.stamp import stamp

METHODS = {
    "perturb.fgsm": "ostiary.perturb.fgsm:FGSM",
    "perturb.pgd": "ostiary.perturb.pgd:PGD",
    "perturb.universal": "ostiary.perturb.universal:UniversalPerturbation",
}

__all__ = ["METHODS", "stamp"]
