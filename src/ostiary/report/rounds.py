"""Sections about federated learning: what each round decided of whom, and what became of the model."""

from collections import Counter

from ostiary.core.records import ClientVerdict, MethodResult, RoundsEvidence
from ostiary.report import svg
from ostiary.report.blocks import Block, Cell, Figure, Figures, Section, Table, table
from ostiary.report.models import Source
from ostiary.report.words import NOT_EXAMINED, measure_name, number, show

MAX_ROUNDS, MAX_CLIENTS = 120, 60
"""More are left out of drawings; the tables count them all."""


def rates(source: Source, result: MethodResult) -> Section | None:
    """The rates of the whole federation."""
    evidence = result.evidence
    if not isinstance(evidence, RoundsEvidence):
        return None
    rows: list[tuple[Cell, ...]] = [(measure_name(key), rate) for key, rate in evidence.rates.items()]
    rows += [(measure_name(key), number(value)) for key, value in evidence.measures.items()]
    caption = "Rates with 95 % Wilson intervals; a lifespan is in rounds after the attack's last"
    return Section("Federation", "What came of it?", (table(("measure", "value"), rows, caption=caption),))


def courses(source: Source, result: MethodResult) -> Section | None:
    """Accuracy and attack success over the rounds."""
    evidence = result.evidence
    if not isinstance(evidence, RoundsEvidence) or not any(one.accuracy for one in evidence.rounds):
        return None
    shown = evidence.rounds[:MAX_ROUNDS]
    series = [("accuracy", [one.accuracy.value if one.accuracy else None for one in shown])]
    if any(one.success for one in shown):
        series.append(("attack success", [one.success.value if one.success else None for one in shown]))
    drawing = svg.courses(series, shown[0].number, title="Accuracy over the rounds", window=_window(evidence))
    rows = [(str(one.number), one.accuracy or NOT_EXAMINED, one.success or NOT_EXAMINED) for one in evidence.rounds]
    data = table(("round", "accuracy", "attack success"), rows)
    words = f"Share of the samples that nobody trained on.{_left_out(evidence)}"
    return Section("Over the rounds", "When did it take?", (Figures((Figure(drawing, words, data),)),))


def _window(evidence: RoundsEvidence) -> tuple[int, int] | None:
    """The part of the attack's rounds that is drawn."""
    last = evidence.rounds[:MAX_ROUNDS][-1].number
    if evidence.attacked is None or evidence.attacked[0] > last:
        return None
    return evidence.attacked[0], min(evidence.attacked[1], last)


def _left_out(evidence: RoundsEvidence) -> str:
    more = len(evidence.rounds) - MAX_ROUNDS
    return f" The last {more} rounds are not drawn." if more > 0 else ""


def clients(source: Source, result: MethodResult) -> Section | None:
    """Rounds by clients: accepted or refused, and why; and what it cost each of them."""
    evidence = result.evidence
    if not isinstance(evidence, RoundsEvidence):
        return None
    order = sorted(evidence.clients, key=lambda name: (name not in evidence.attackers, name))
    by_round = [{one.client: one for one in done.clients} for done in evidence.rounds]
    found = {name: [told.get(name) for told in by_round] for name in order}
    rows = [(_label(name, evidence), [_state(one) for one in found[name][:MAX_ROUNDS]]) for name in order[:MAX_CLIENTS]]
    drawing = svg.states(rows, evidence.rounds[0].number, title="Clients in each round", window=_window(evidence))
    caption = (
        "A dot: has a part in the round's model. Hatched: refused. Empty: no reply, or the model stayed as it was."
    )
    caption += _left_out(evidence)
    if evidence.attackers:
        caption += " Attackers, known in a study alone, stand first and have an exclamation mark."
    blocks: list[Block] = [Figures((Figure(drawing, caption, _table(evidence, order, found)),))]
    codes = Counter((one.code, one.accepted) for row in found.values() for one in row if one is not None and one.code)
    if codes:
        told = [(code, "accepted" if yes else "refused", str(count)) for (code, yes), count in sorted(codes.items())]
        caption = "What was said of replies; `ostiary explain CODE` says what each means"
        blocks.append(table(("code", "reply", "times"), told, right=(2,), caption=caption))
    return Section("Clients", "Who was refused, and why?", tuple(blocks))


def _label(name: str, evidence: RoundsEvidence) -> str:
    return f"! {name}" if name in evidence.attackers else name


def _state(one: ClientVerdict | None) -> bool | None:
    """Accepted (True) or refused (False); None without a reply, or where the round was not aggregated.

    A refusal has a code.
    """
    if one is None or not (one.accepted or one.code):
        return None
    return one.accepted


def _table(evidence: RoundsEvidence, order: list[str], found: dict[str, list[ClientVerdict | None]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in order:
        replies = [one for one in found[name] if one is not None]
        refused = [one for one in replies if _state(one) is False]
        most = Counter(one.reason for one in refused).most_common(1)
        rows.append(
            (
                _label(name, evidence),
                str(len(replies)),
                str(len(refused)),
                number(sum(one.weight for one in replies) / len(replies)) if replies else NOT_EXAMINED,
                evidence.own.get(name, NOT_EXAMINED),
                show(most[0][0], 120) if most else "",
            )
        )
    head = ("client", "replies", "refused", "mean weight", "right on its own samples", "most often refused because")
    return table(head, rows, right=(1, 2, 3))
