"""Make the references that come with the package: models of a grid that nobody attacked, scanned by a preset.

    make bench-grid GRID=calibrate
    python -m benchmarks.references --store build/bench/calibrate

Each model is scanned with its own trusted images by the methods of the preset, all of them, and its measures are kept
in `src/ostiary/scan/references/ARCH-DATA.json`. Models that a file holds already are not scanned again.
"""

from pathlib import Path

from benchmarks.common import HERE, note, parse, parser
from benchmarks.scanners import trusted_of

from ostiary.bench.runner import make_plan
from ostiary.bench.store import MODEL, Store
from ostiary.core.plan import plan
from ostiary.core.session import Options
from ostiary.models.load import load_model
from ostiary.scan.calibration import calibrate

OUT = HERE.parent / "src" / "ostiary" / "scan" / "references"


def main() -> None:
    """Scan what no reference holds yet."""
    made = parser(__doc__)
    made.add_argument("--grid", default="calibrate", help="name of a grid in benchmarks/grids (default calibrate)")
    made.add_argument("--store", type=Path, required=True, help="where that grid was run")
    made.add_argument("--preset", default="standard", help="preset (default standard)")
    made.add_argument("--arch", help="only models of this architecture")
    made.add_argument("--out", type=Path, default=OUT, help="folder of the references (default: the package's)")
    args = parse(made)
    grid, store = make_plan(HERE / "grids" / f"{args.grid}.toml"), Store(args.store)
    args.out.mkdir(parents=True, exist_ok=True)
    for model in grid.models:
        path = store.model_dir(model.key) / MODEL
        if model.kind == "attack" or args.arch not in (None, model.arch) or store.model(model.key) is None:
            continue
        trusted = trusted_of(store, model, grid.grid.trusted[0])
        trusted.name = f"{model.data.name}, {model.data.trusted_from} part"
        out = args.out / f"{model.arch}-{model.data.name}.json"
        note(f"{out.name}: {model.name}, seed {model.seed}")
        _, left = calibrate(
            [path], load_model, trusted, out, plan("scan", preset=args.preset), Options(seed=model.seed)
        )
        for one in left:
            note(f"left out: {one.reason}")


if __name__ == "__main__":
    main()
