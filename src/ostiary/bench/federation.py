"""A study as a command runs it: settings in; the last model, a statement of each round and a record out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from securesystemslib.signer import CryptoSigner

from ostiary.bench.federation_settings import Settings
from ostiary.core.card import Card, Have, Needs
from ostiary.core.errors import ConfigError, DataError, NoPart, NotMet
from ostiary.core.files import refuse_existing
from ostiary.core.records import Rate, Record, RoundEntry, RoundsEvidence
from ostiary.core.run import Run
from ostiary.core.session import Options
from ostiary.data import ImageSet, open_data, require_classes, trusted_subset
from ostiary.federated.admission import Reply
from ostiary.federated.attacks.study import Federation, Outcome, Samples, Threat, lifespan, measured, run_study
from ostiary.federated.layout import Tensors
from ostiary.federated.record import Judged, verdicts, write_rounds
from ostiary.federated.rounds import Round, without_update
from ostiary.federated.verdict import Array
from ostiary.federated.zoo_network import ZooNetwork
from ostiary.inputs import start
from ostiary.models.load import load_model, save_model

LAST = "global.safetensors"
"""The name of the last model."""
LEAST = 10
"""Samples of a client, at least."""


@dataclass(slots=True)
class Study:
    """Rounds of federated averaging under a rule, with attackers among the clients; each is written as it ends.

    The models of the first `keep` refused replies are kept, to be scanned. `tell` is given each round.
    """

    card: ClassVar[Card] = Card(
        id="federated.study",
        summary="rounds of federated learning in one process, with attackers in it",
        paper="McMahan et al. 2017, AISTATS, arXiv 1602.05629 (federated averaging)",
        needs=Needs(modality="images", training_data=True),
        cost="clients x rounds local trainings",
    )

    federation: Federation
    network: ZooNetwork
    rule: Any
    threat: Threat | None
    settings: Settings
    out: Path
    keep: int
    tell: Callable[[Judged], None]

    def study(self, data: ImageSet, /, *, run: Run) -> RoundsEvidence:
        """All rounds and the last model; raises OutOfTime, and NotMet where no round was aggregated."""
        noted = 0
        before: list[tuple[Tensors, Round]] = []

        def watch(replies: Sequence[Reply], model: Tensors, done: Round) -> None:
            before.append((model, done))
            self._keep_refused(replies, done, data)

        outcomes: list[Outcome] = []
        last: Tensors = {}
        admission = self.settings.server.admission
        how: dict[str, Any] = {"rounds": self.settings.rounds, "admission": admission, "run": run, "watch": watch}
        for outcome in run_study(self.federation, self.rule, self.threat, **how):
            model, done = before.pop()
            self.tell(Judged(done, self.rule, model, outcome.model, tuple(run.cautions[noted:])))
            noted, last = len(run.cautions), outcome.model
            outcomes.append(replace(outcome, model={}, round=without_update(outcome.round)))
        if all(one.round.verdict is None for one in outcomes):
            raise NotMet("no round was aggregated: the cautions say why")
        self._save(last, self.out / LAST, data)
        return self._evidence(outcomes, self.network.flat(last))

    def _keep_refused(self, replies: Sequence[Reply], done: Round, data: ImageSet) -> None:
        """Write the models of refused replies that fit the network, as long as some are wanted."""
        sent = {reply.node: reply.tensors for reply in replies}
        judged = () if done.verdict is None else done.clients
        refused = done.refused.keys() | (set(judged) - done.accepted)
        for name in sorted(sent.keys() & refused):
            kept = len(list(self.out.glob("refused/*.safetensors")))
            if kept < self.keep and all(np.isfinite(part).all() for part in sent[name].values()):
                self._save(sent[name], self.out / "refused" / f"round-{done.number:03d}-{name}.safetensors", data)

    def _save(self, model: Tensors, path: Path, data: ImageSet) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = self.network.classifier(self.network.flat(model), tuple(data.classes), path.name)
        save_model(made, path)

    def _evidence(self, outcomes: Sequence[Outcome], weights: Array) -> RoundsEvidence:
        federation, threat = self.federation, self.threat
        own = {name: measured(federation, weights, *federation.shard(name)) for name in federation.names}
        honest = [name for name in federation.names if threat is None or name not in federation.attackers]
        shares = [own[name].value or 0.0 for name in honest]
        measures = {
            "mean accuracy on honest clients' own samples": float(np.mean(shares)),
            "lowest accuracy on an honest client's own samples": min(shares),
        }
        if threat is not None and threat.last < len(outcomes):
            measures["lifespan"] = float(lifespan(outcomes, threat.last))
        return RoundsEvidence(
            clients=federation.names,
            attackers=() if threat is None else federation.attackers,
            attacked=None if threat is None else (threat.first, threat.last),
            rounds=tuple(
                RoundEntry(
                    number=one.round.number, clients=verdicts(one.round), accuracy=one.accuracy, success=one.success
                )
                for one in outcomes
            ),
            rates=_rates(outcomes, threat),
            measures=measures,
            own=own,
            examined=tuple(f"client:{name}" for name in federation.names),
        )


def _rates(outcomes: Sequence[Outcome], threat: Threat | None) -> dict[str, Rate]:
    """The rates of the whole study: refused clients are counted over the rounds of the attack, all without one."""
    last = outcomes[-1]
    if threat is None:
        parts = [rate for one in outcomes for rate in (one.honest_refused, one.attackers_refused)]
        return {"accuracy": last.accuracy, "honest clients refused": Rate.joined(parts)}
    during = [one for one in outcomes if threat.first <= one.round.number <= threat.last]
    found = {"accuracy": last.accuracy, "accuracy after the attack's last round": during[-1].accuracy}
    for name, rate in (
        ("success after the attack's last round", during[-1].success),
        ("success at the end", last.success),
    ):
        found |= {f"attack {name}": rate} if rate is not None else {}
    found["attackers refused"] = Rate.joined([one.attackers_refused for one in during])
    found["honest clients refused"] = Rate.joined([one.honest_refused for one in during])
    return found


def samples_of(settings: Settings, spec: str, seed: int) -> tuple[ImageSet, Samples]:
    """The set that is shared out, and its samples with those kept back before them.

    What is kept back comes from the test part where there is one. Raises DataError where too few samples are left.
    """
    shared = open_data(spec, "train")
    require_classes(shared)
    if settings.samples is not None and settings.samples < len(shared):
        shared = trusted_subset(shared, settings.samples, seed)
    try:
        tests = open_data(spec, "test")
        kept = _arrays(trusted_subset(tests, min(settings.test, len(tests)), seed))
        if len(kept[1]) <= settings.server.trusted:
            raise DataError(
                f"'{tests.name}' has {len(kept[1])} samples for tests, {settings.server.trusted} are the server's own",
                hint="none measure: lower trusted",
            )
    except NoPart:
        kept = None
    images, labels = _arrays(shared)
    if kept is not None:
        joined = Samples(np.concatenate([kept[0], images]), np.concatenate([kept[1], labels]), len(kept[1]))
    else:
        joined = Samples(images, labels)
    left = len(joined.labels) - (settings.test if joined.kept is None else joined.kept)
    if left < LEAST * settings.clients.number:
        raise DataError(
            f"'{shared.name}' leaves {left} samples for {settings.clients.number} clients",
            hint=f"{LEAST} for each are the least: fewer clients, or lower test",
        )
    return shared, joined


def _arrays(data: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, h, w] or [n, h, w, c] in [0, 1], float64, and labels."""
    pixels = data.pixels(range(len(data))).numpy() / 255.0
    images = pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), data.labels.numpy().astype(np.int64)


def _aimed(threat: Threat, federation: Federation, classes: Sequence[str]) -> None:
    """Raises ConfigError for an attack on classes that the data have not, or that nothing is there to measure."""
    name = threat.data.card.id.rpartition(".")[2]
    for key in ("target", "source"):
        label = getattr(threat.data, key, 0)
        if label >= len(classes):
            raise ConfigError(
                f"threat.set.{name}.{key} is {label}, the data have {len(classes)} classes",
                hint=f"0 to {len(classes) - 1}",
            )
    if not len(threat.data.test(*federation.measuring)[1]):
        raise ConfigError(
            f"'{name}' finds no sample to measure its success on among those kept back",
            hint="raise test, or choose another source or target",
        )


def run_federation(
    settings: Settings,
    spec: str,
    out: Path,
    *,
    signers: Sequence[CryptoSigner] = (),
    keep: int = 0,
    options: Options | None = None,
) -> Record:
    """Run the study that `settings` describe on the data at `spec` and write the folder `out`.

    Raises OstiaryError for unusable inputs, and where `out` exists.
    """
    options = options or Options()
    refuse_existing(out)
    data, samples = samples_of(settings, spec, options.seed)
    threat = settings.threat
    network = ZooNetwork(settings.arch, len(data.classes), data.shape, settings.width)
    made = None if threat is None else threat.threat(settings.clients)
    federation = Federation(
        seed=options.seed,
        alpha=settings.clients.alpha,
        clients=settings.clients.number,
        bad=0 if threat is None else threat.number,
        samples=samples,
        test=settings.test,
        root_size=settings.server.trusted,
        stamps=settings.server.copies(),
        network=network,
        recipe=settings.clients.recipe(),
    )
    if made is not None:
        _aimed(made, federation, data.classes)
    method = Study(
        federation,
        network,
        settings.server.make_rule(),
        made,
        settings,
        out,
        keep,
        write_rounds(out / "rounds", signers, planned=settings.rounds),
    )
    config = {"settings": settings.model_dump(mode="json")}
    subject = f"{settings.server.rule} among {settings.clients.number} clients"
    session = start("federated", None, options, config, [Study.card.id], data=data, subject=subject)
    have = Have(modality="images", training_data=True)
    outcome = session.execute(method, data, have=have, call="study")
    if outcome.value is not None:
        session.config["out"] = str(out)
        session.digests["model"] = load_model(out / LAST).digest
    return session.finish()
