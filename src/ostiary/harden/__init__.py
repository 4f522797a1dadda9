"""Hardened training: a model from suspect data in which poison does not take; one file per method, one line here."""

METHODS = {
    "harden.abl": "ostiary.harden.abl:AntiBackdoorLearning",
    "harden.asd": "ostiary.harden.asd:AdaptiveSplitting",
    "harden.nab": "ostiary.harden.nab:NonAdversarialBackdoor",
    "harden.adversarial": "ostiary.harden.adversarial:AdversarialTraining",
    "harden.mixup": "ostiary.harden.mixup:Mixup",
    "harden.cutmix": "ostiary.harden.cutmix:CutMix",
    "harden.dp-sgd": "ostiary.harden.dp_sgd:DPSGD",
}
