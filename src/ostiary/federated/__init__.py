"""Federated learning: rules that aggregate clients' updates without knowing who attacks, and who may take part.

Everything here is NumPy on flat float64 updates [clients, parameters]; nothing here may import the attacks.
"""

METHODS = {
    "aggregate.guard": "ostiary.federated.guard:Guard",
    "aggregate.rfa": "ostiary.federated.rfa:RFA",
    "aggregate.norm-clip": "ostiary.federated.norm_clip:NormClip",
    "aggregate.fltrust": "ostiary.federated.fltrust:FLTrust",
    "aggregate.flame": "ostiary.federated.flame:Flame",
    "aggregate.flame-updates": "ostiary.federated.flame:FlameUpdates",
    "aggregate.rlr": "ostiary.federated.rlr:RobustLearningRate",
    "aggregate.foolsgold": "ostiary.federated.foolsgold:FoolsGold",
    "aggregate.fldetector": "ostiary.federated.fldetector:FLDetector",
    "aggregate.deepsight": "ostiary.federated.deepsight:DeepSight",
    "aggregate.nnm": "ostiary.federated.mixing:NearestNeighbourMixing",
    "aggregate.bucketing": "ostiary.federated.mixing:Bucketing",
    "aggregate.flower": "ostiary.federated.flower_rules:FlowerRule",
}
