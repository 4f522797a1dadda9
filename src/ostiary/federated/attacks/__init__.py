"""Attacks of clients in federated learning, for measuring rules on one's own data. Sealed: no rule may import this.

What an attacker sends is trained here, on data that one has; nothing is of use against a federation one does not run.
"""

METHODS = {
    "client-attack.badnets": "ostiary.federated.attacks.badnets:BadNets",
    "client-attack.blended": "ostiary.federated.attacks.badnets:Blended",
    "client-attack.dba": "ostiary.federated.attacks.dba:DBA",
    "client-attack.edge-case": "ostiary.federated.attacks.edge_case:EdgeCase",
    "client-attack.label-flip": "ostiary.federated.attacks.label_flip:LabelFlip",
    "client-attack.model-replacement": "ostiary.federated.attacks.scaling:ModelReplacement",
    "client-attack.constrain-and-scale": "ostiary.federated.attacks.scaling:ConstrainAndScale",
    "client-attack.pgd": "ostiary.federated.attacks.pgd:PGD",
    "client-attack.neurotoxin": "ostiary.federated.attacks.neurotoxin:Neurotoxin",
    "client-attack.neurotoxin-gradient": "ostiary.federated.attacks.neurotoxin:NeurotoxinGradient",
}
