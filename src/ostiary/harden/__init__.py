"""Hardened training: a model from suspect data in which poison does not take; one file per method, one line here."""

METHODS = {
    "harden.abl": "ostiary.harden.abl:AntiBackdoorLearning",
}
