"""Whether what a model learnt from, as far as an index of trusted statements tells, lets it pass."""

from datetime import datetime
from pathlib import Path

from ostiary.provenance.policy import Policy
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.samples.index import Index
from ostiary.provenance.samples.lineage import Lineage


def data_reasons(
    root: str, policy: Policy, *, now: datetime, base: str | None = None, state: Path | None = None
) -> tuple[list[Reason], list[str]]:
    """Why the model with this root does not pass for what it was made of, and what it was made of where it does.

    `base` is the root of the model that it, an adapter, is loaded on. Nobody says what it learnt from (OS785), it was
    not made from that base (OS787), a source, a set or a base is revoked (OS768), statements contradict (OS767), or
    statements in the index do not count any more, with the reason why.
    """
    rules = policy.rules.data
    if rules is None:
        return [], []
    try:
        lineage = Lineage(Index(policy.folder / rules.index), policy.trust, now=now, state=state)
    except Refused as error:
        return list(error.reasons), []
    own = [one for one in lineage.known.trainings if one.root == root]
    reasons = [*lineage.known.uncounted, *lineage.affected(root)]
    if not own:
        reasons.append(Reason("OS785", f"model {root[:12]}", "no trusted statement in the index is about it"))
    if base is not None and own and all(base not in {link.root for link in one.what.bases} for one in own):
        text = f"nothing says that it was made from the base at hand, {base[:12]}"
        reasons.append(Reason("OS787", f"model {root[:12]}", text))
    made = [", ".join(link.name for link in (*one.what.dataSets, *one.what.bases)) for one in own]
    told = [f"it was made of {names or 'nothing that is told'}" for names in made]
    return reasons, [] if reasons else told
