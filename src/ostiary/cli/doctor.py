"""`ostiary doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

import click

from ostiary.cli import common

EPILOG = """\b
Examples:
  ostiary doctor
  OSTIARY_RUNS=/data/runs ostiary doctor
  ostiary doctor && ostiary demo
"""

REQUIRED = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "pydantic", "pillow", "pyarrow", "jinja2")
EXTRAS = {"text": ("transformers",), "onnx": ("onnx", "onnxruntime")}


@click.command("doctor", epilog=EPILOG)
@common.global_options()
@click.pass_context
def command(ctx: click.Context, /, **o: Any) -> None:
    """Check this installation: versions, extras, device, the folders for records and the cache."""
    common.call_settings(ctx, **o)
    problems = []
    click.echo(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in REQUIRED:
        try:
            click.echo(f"{name:<13} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        state = f"without {', '.join(missing)}: pip install 'ostiary[{extra}]'" if missing else "installed"
        click.echo(f"[{extra}]        {state}")
    if importlib.util.find_spec("torch") is not None:
        _device()
    _runs(problems)
    _cache()
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    sys.exit(2 if problems else 0)


def _device() -> None:
    import torch

    from ostiary.training.loop import has_fast_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = "bf16 in hardware" if has_fast_bf16(device) else "fp32 only"
    click.echo(f"device        {device.type}, {torch.get_num_threads()} threads, {bf16}")


def _runs(problems: list[str]) -> None:
    from ostiary.core.store import runs_root

    root = runs_root()
    nearest = next((p for p in (root, *root.absolute().parents) if p.exists()), Path("/"))
    writable = os.access(nearest, os.W_OK)
    click.echo(f"records       {root}{'' if root.exists() else ' (not there yet)'}")
    if not writable:
        problems.append(f"'{root}' cannot be written; set OSTIARY_RUNS")


def _cache() -> None:
    from ostiary.core.cache import ArrayCache

    cache = ArrayCache.default()
    click.echo(f"cache         {cache.root}, {cache.size / 1e9:.2f} of {cache.limit / 1e9:g} GB")
