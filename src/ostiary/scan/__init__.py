"""Model scanners: one file per method, one line here."""

METHODS = {
    "scan.b3d": "ostiary.scan.b3d:B3D",
    "scan.trojan-signature": "ostiary.scan.trojan_signature:TrojanSignature",
    "scan.channel-lipschitz": "ostiary.scan.channel_lipschitz:ChannelLipschitz",
    "scan.frequency-trigger": "ostiary.scan.frequency_trigger:FrequencyTrigger",
    "scan.warp-trigger": "ostiary.scan.warp_trigger:WarpTrigger",
    "scan.shift-trigger": "ostiary.scan.shift_trigger:ShiftTrigger",
    "scan.pair-trigger": "ostiary.scan.pair_trigger:PairTrigger",
    "scan.mm-bd": "ostiary.scan.mm_bd:MMBD",
    "scan.neural-cleanse": "ostiary.scan.neural_cleanse:NeuralCleanse",
    "text.scan.bait": "ostiary.scan.bait:Bait",
    "text.scan.trigger-search": "ostiary.scan.trigger_search:TriggerSearch",
    "text.scan.phrase-trial": "ostiary.scan.phrase_trial:PhraseTrial",
    "text.scan.adapter-spectrum": "ostiary.scan.adapter_spectrum:AdapterSpectrum",
    "text.scan.dbs": "ostiary.scan.dbs:Dbs",
    "text.scan.few-shot-perturbation": "ostiary.scan.few_shot:FewShotPerturbation",
}
