"""From a grid and a store to jobs, and from what jobs gave to records."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import IO, Any

import torch

from ostiary.bench.bank import Bank
from ostiary.bench.cells import Cell, DataSpec, ModelSpec, cells, digest_of, models, seed_of
from ostiary.bench.grid import ROLES, DataPart, Grid, data_path, read_grid
from ostiary.bench.store import DATA, INPUTS_DIR, MODEL, Row, Store
from ostiary.core.errors import DataError
from ostiary.core.session import environment
from ostiary.data import open_data
from ostiary.defend import read_result
from ostiary.engines import Done, Engine, Job, schedule

GIB = 2**30
WAIT = 2.0
"""Seconds between looks at what another process is working on."""

OnRow = Callable[[Row, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A grid with all its models and cells."""

    grid: Grid
    models: tuple[ModelSpec, ...]
    cells: tuple[Cell, ...]


def make_plan(path: Path) -> Plan:
    """Read a grid and list what it asks for; opens its data for the digests. Raises OstiaryError for bad input."""
    grid = read_grid(path)
    data = {name: _data_spec(name, part, grid, path) for name, part in grid.data.items()}
    made = models(grid, data)
    return Plan(grid, tuple(made), tuple(cells(grid, made)))


def _data_spec(name: str, part: DataPart, grid: Grid, path: Path) -> DataSpec:
    train, test = data_path(part.train, path), data_path(part.test, path)
    opened, held = open_data(train), open_data(test, "test")
    left = len(opened) - (part.set_aside * len(opened.classes) if part.trusted_from == "train" else 0)
    pools = part.pools or (left // 3, left // 3, left // 3)
    pool = pools[ROLES.index(grid.role)]
    where = f"[data.{name}]"
    if sum(pools) > left:
        raise DataError(
            f"{where}: pools of {sum(pools)} are more than the {left} images of '{part.train}' that are left"
        )
    if part.images > pool:
        raise DataError(
            f"{where}: models get {part.images} images, the pool of '{grid.role}' has {pool}",
            hint="lower images, or set pools",
        )
    if max(grid.trusted) > part.set_aside:
        raise DataError(f"{where}: {max(grid.trusted)} trusted images per class, {part.set_aside} are set aside")
    digests = (opened.digest, held.digest)
    own = (part.images, part.set_aside, part.trusted_from, pools, grid.role, part.imbalance)
    return DataSpec(name, train, test, digests, *own)


@dataclass(slots=True)
class Tally:
    """What a run spent: seconds on the clock, over all jobs, and in model arithmetic; slots are jobs at once."""

    slots: int = 1
    jobs: int = 0
    cells: int = 0
    wall: float = 0.0
    busy: float = 0.0
    arithmetic: float = 0.0

    def add(self, done: Done) -> None:
        """Count one job."""
        self.jobs += done.status != "blocked"
        self.busy = round(self.busy + done.seconds, 3)
        if isinstance(done.value, dict):
            self.arithmetic = round(self.arithmetic + done.value.get("arithmetic", 0.0), 3)


@dataclass(slots=True)
class Runner:
    """Runs what a plan asks for and a store lacks.

    `bank` is a folder of models to take instead of training; FormatError when it is none. `on_row` is
    told of every record as it is kept, with how many of the plan's are there.
    """

    plan: Plan
    store: Store
    bank: Path | None = None
    on_row: OnRow = lambda row, done, total: None
    _cells: dict[str, Cell] = field(init=False)
    tally: Tally = field(default_factory=Tally)
    _claims: dict[str, IO[str]] = field(default_factory=dict)
    _spent: dict[str, dict[str, Any]] = field(default_factory=dict)
    _done: int = 0

    def __post_init__(self) -> None:
        self._cells = {cell.key: cell for cell in self.plan.cells}
        if self.bank is not None:
            Bank(self.bank)  # a bank that cannot be read is an error now and not of every model

    @property
    def _device(self) -> str:
        return self.plan.grid.limits.device

    def run(self, engine: Engine, *, retry_failed: bool = False) -> None:
        """Run every cell that the store lacks; failed ones too with `retry_failed`. Returns when all are recorded.

        What another process is working on is left to it, and run here only when it gives up. What this
        call spent is in `tally`, and kept in the store.
        """
        begun, self.tally.slots = time.monotonic(), engine.slots
        try:
            self._run_all(engine, retry_failed)
        finally:
            self.tally.wall = round(time.monotonic() - begun, 3)
            if self.tally.cells:
                self.store.note_run({"grid": self.plan.grid.name, **asdict(self.tally), "machine": _machine()})

    def _run_all(self, engine: Engine, retry_failed: bool) -> None:
        while True:
            finished, failed = self.store.finished(), self.store.failures()
            over = finished.keys() if retry_failed else finished.keys() | failed.keys()
            open_cells = [cell for cell in self.plan.cells if cell.key not in over]
            self._done = len(self.plan.cells) - len(open_cells)
            retry_failed = False
            groups = {_group(cell) for cell in open_cells}
            claimed = {group for group in groups if self._claim(group)}
            # Asked again: what another process kept while this one was looking is not run twice.
            mine = [cell for cell in open_cells if _group(cell) in claimed and not self.store.has(cell.key)]
            if not open_cells:
                return
            try:
                if mine:
                    self._run(engine, mine)
                else:
                    time.sleep(WAIT)
            finally:
                self._release()

    def _claim(self, key: str) -> bool:
        if (file := self.store.claim(key)) is not None:
            self._claims[key] = file
        return file is not None

    def _release(self) -> None:
        for file in self._claims.values():
            file.close()
        self._claims.clear()

    def _run(self, engine: Engine, mine: list[Cell]) -> None:
        jobs, unrecorded = self.jobs(mine), {cell.key for cell in mine}
        for done in schedule(engine, jobs.values()):
            self._spent[done.key] = {"seconds": round(done.seconds, 3), "peak_bytes": done.peak_bytes}
            self.tally.add(done)
            kind, _, key = done.key.partition(":")
            ended = kind == "measure" or (kind == "defend" and done.status not in ("ok", "blocked"))
            if ended and key in unrecorded:
                unrecorded.discard(key)
                self._keep_cell(self._cells[key], done)

    def jobs(self, wanted: list[Cell]) -> dict[str, Job]:
        """The jobs that lead to the wanted cells, by key, without what is done already."""
        found: dict[str, Job] = {}
        for cell in wanted:
            self._add_model(cell.model, found)
            for part in (cell.scan, cell):
                if part is not None:
                    self._add_defence(part, found)
            self._add_measure(cell, found)
        return found

    def _job(self, key: str, call: str, needs: list[str], found: dict[str, Job], **args: Any) -> Job:
        limits = self.plan.grid.limits
        return Job(
            key=key,
            call=f"ostiary.bench.work:{call}",
            args={"store": str(self.store.path), **args},
            needs=tuple(need for need in needs if need in found),
            timeout=limits.timeout,
            memory=int(limits.memory_gib * GIB),
            threads=limits.threads,
        )

    def _add_data(self, model: ModelSpec, found: dict[str, Job]) -> str:
        data = model.data
        key = f"data:{data.key}"
        asked = list(product(self.plan.grid.trusted, self.plan.grid.sources, self.plan.grid.seeds))
        keys = [data.part_key("pool"), data.part_key("test"), *(data.trusted_key(*one) for one in asked)]
        if key not in found and not all(self.store.set_dir(one).exists() for one in keys):
            found[key] = self._job(
                key, "prepare_data", [], found, spec=asdict(model), trusted=[list(one) for one in asked]
            )
        return key

    def _add_model(self, model: ModelSpec, found: dict[str, Job]) -> str:
        key = f"model:{model.key}"
        if key in found or self._has_model(model):
            return key
        needs = [self._add_data(model, found)]
        if model.kind != "twin":
            needs.append(self._add_model(model.twin, found))
        bank = None if self.bank is None else str(self.bank)
        found[key] = self._job(
            key,
            "make_model",
            needs if model.from_twin else needs[:1],
            found,
            spec=asdict(model),
            bank=bank,
            device=self._device,
        )
        return key

    def _has_model(self, model: ModelSpec) -> bool:
        return self.store.has(model.key, "models") and (self.store.model_dir(model.key) / MODEL).exists()

    def _add_defence(self, cell: Cell, found: dict[str, Job]) -> None:
        key, out = f"defend:{cell.key}", self.store.work_dir(cell.key)
        if key in found or out.exists() or cell.defence is None:
            return
        model = cell.model
        folder, trusted = self.store.model_dir(model.key), model.data.trusted_key(cell.budget, cell.source, model.seed)
        needs = [self._add_data(model, found), self._add_model(model, found)]
        args = {
            "verb": cell.verb,
            "method": cell.defence.id,
            "params": cell.params,
            "out": str(out),
            "model": str(folder / MODEL),
            "trusted": str(self.store.set_dir(trusted)),
            "data": str(folder / DATA) if cell.verb == "screen" else None,
            "device": self._device,
            "inputs": str(folder / INPUTS_DIR) if cell.verb == "guard" else None,
            # A hash of everything: nothing of the attack's own seed, which would repeat its choices, is in it.
            "seed": seed_of("defence", cell.key),
        }
        if cell.scan is not None:
            args["scan"] = str(self.store.work_dir(cell.scan.key))
            needs.append(f"defend:{cell.scan.key}")
        out.parent.mkdir(parents=True, exist_ok=True)
        shown = [folder, self.store.set_dir(trusted), out.parent]
        shown += [self.store.work_dir(cell.scan.key)] if cell.scan else []
        # The data's own files too: what is not in them word for word was touched.
        hidden = [self.store.path, model.data.train, model.data.test, *([self.bank] if self.bank else [])]
        plain = self._job(key, "", needs, found)
        found[key] = Job(
            key=key,
            call="ostiary.defend:defend",
            args=args,
            needs=plain.needs,
            sealed=True,
            hidden=tuple(map(str, hidden)),
            keep=tuple(map(str, shown)),
            timeout=plain.timeout,
            memory=plain.memory,
            threads=plain.threads,
        )

    def _add_measure(self, cell: Cell, found: dict[str, Job]) -> None:
        key, spec = f"measure:{cell.key}", asdict(cell.model)
        if cell.defence is None:
            needs = [f"model:{cell.model.key}", f"model:{cell.model.twin.key}"]
            found[key] = self._job(key, "measure_model", needs, found, spec=spec, device=self._device)
        else:
            needs = [f"defend:{cell.key}", f"model:{cell.model.key}"]
            found[key] = self._job(
                key, "measure_defence", needs, found, spec=spec, cell=cell.key, verb=cell.verb, device=self._device
            )

    def _keep_cell(self, cell: Cell, done: Done) -> None:
        row = self._row(cell)
        spent = [
            self._spent[f"{kind}:{cell.key}"] for kind in ("defend", "measure") if f"{kind}:{cell.key}" in self._spent
        ]
        row["seconds"] = round(sum(one["seconds"] for one in spent), 3)
        if done.status == "ok":
            row |= done.value | self._defended(cell)
            self.store.keep(row)
        else:
            row |= {"status": done.status, "reason": done.reason, "rates": {}, "measures": {}}
            self.store.fail(row)
        self._done += 1
        self.tally.cells += 1
        self.on_row(row, self._done, len(self.plan.cells))

    def _defended(self, cell: Cell) -> dict[str, Any]:
        """What the defence itself says of its run: status, reason, seconds, memory."""
        if cell.defence is None:
            return {"status": "ok", "reason": None}
        result = read_result(self.store.work_dir(cell.key))
        return {
            "status": result.status,
            "reason": result.reason,
            "method_seconds": result.seconds,
            "peak_bytes": result.peak_bytes,
            "cautions": [caution.code for caution in result.cautions],
        }

    def _row(self, cell: Cell) -> Row:
        """What a record says of its cell, whatever came of it."""
        model = cell.model
        return {
            "key": cell.key,
            "grid": self.plan.grid.name,
            "role": model.data.role,
            "data": model.data.name,
            "model": model.model,
            "arch": model.arch,
            "seed": model.seed,
            "kind": model.kind,
            "attack": model.name,
            "method": model.method,
            "rate": model.rate,
            "params": model.params,
            "model_key": model.key,
            "defence": cell.name,
            "defence_method": cell.defence.id if cell.defence else None,
            "defence_params": cell.params,
            "scan": _named(cell.scan) if cell.scan else None,
            "trusted": cell.budget,
            "source": cell.source,
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "machine": _machine(),
        }


def _group(cell: Cell) -> str:
    """Cells that one process runs together, since some build on others: all of a model, a budget and a source."""
    return digest_of([cell.model.key, cell.budget, cell.source if cell.defence else ""])


def _named(scan: Cell) -> dict[str, Any]:
    return {"method": scan.defence.id if scan.defence else None, "params": scan.params}


def _machine() -> dict[str, Any]:
    return environment(torch.device("cpu")).model_dump(mode="json")
