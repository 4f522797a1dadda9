"""Inference-time filters: one file per method, one line here."""

METHODS = {
    "guard.strip": "ostiary.guard.strip:Strip",
}
