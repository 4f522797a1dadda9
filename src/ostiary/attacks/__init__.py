"""Published attacks, for measuring defences on one's own data and models. Sealed: no defence may import this.

Payloads are labels; nothing here is of use against a system one does not train oneself.
"""

METHODS = {
    "attack.badnets": "ostiary.attacks.badnets:BadNets",
    "attack.blended": "ostiary.attacks.blended:Blended",
}
