"""Which versions of Flower the guard, the grid and the red team work with: their tests, in throw-away environments.

    python -m benchmarks.flower_versions
    python -m benchmarks.flower_versions --versions 1.41.0 1.42.0

Each version is installed with all that it asks for into an environment of its own, which takes the rest (torch,
scikit-learn, pytest) from the one that runs this. Needs the package index, 300 MB of disk and a few minutes a version.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.common import Records, note, parse, parser

ROOT = Path(__file__).parents[1]
TESTS = ("guard", "hostile", "grid", "rules", "red_team")
VERSIONS = ("1.36.0", "1.38.0", "1.40.0", "1.41.0", "1.42.0")


def environment(folder: Path, version: str) -> Path:
    """An environment with this Flower; its own packages go before those of ours."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)  # noqa: S603 - programs of our own choice
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"flwr=={version}"], check=True)  # noqa: S603
    where = subprocess.run(  # noqa: S603
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    Path(where.stdout.strip(), "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT / 'src'}\n")
    return python


def tried(python: Path) -> dict[str, int]:
    """How many tests passed and failed; none at all where they cannot be collected."""
    files = [f"tests/federated/test_flower_{name}.py" for name in TESTS]
    done = subprocess.run(  # noqa: S603
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    note(done.stdout[-2000:])
    counts = {name: re.search(rf"(\d+) {name}", done.stdout) for name in ("passed", "failed", "error")}
    return {name: int(found[1]) if found else 0 for name, found in counts.items()}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--versions", nargs="+", default=VERSIONS, metavar="VERSION")
    args = parse(made)
    about = "Tests of the guard, hostile replies, the grid, Flower's rules and the red team under versions of Flower."
    records = Records("flower_versions", "Federated learning: versions of Flower", about, args)
    for version in args.versions:
        if records.has("versions", version):
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = tried(environment(Path(folder), version))
            except subprocess.CalledProcessError:
                found = {"installed": 0}
        records.add("versions", version, found, seeds=[], n="all tests", seconds=time.monotonic() - begun)
    records.show()


if __name__ == "__main__":
    main()
