"""The user's own architectures, as `file.py:factory` or `package.module:factory`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ostiary.core.errors import ConfigError, FormatError, ModelError, SealBroken

HINT = "give file.py:factory or package.module:factory; the factory is called without arguments"


def is_user_arch(arch: str) -> bool:
    """True when `arch` names code of the user's rather than a zoo name."""
    return ":" in arch


def build_user_module(arch: str) -> nn.Module:
    """Call the factory that `arch` names. This runs the user's code.

    Raises FormatError when the file is missing, ConfigError when there is no such module or factory, ModelError
    when the code fails or gives no nn.Module.
    """
    where, _, factory = arch.rpartition(":")
    if where.endswith(".py") and not Path(where).is_file():
        raise FormatError(f"no such file: '{where}', in the architecture '{arch}'", hint=HINT)
    try:
        source = _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        make = getattr(source, factory, None)
        if not callable(make):
            raise ConfigError(f"'{where}' has no callable '{factory}'", hint=HINT)
        with torch.random.fork_rng(devices=[]):
            module = make()
    except (ConfigError, SealBroken):
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"no module named '{error.name}', for the architecture '{arch}'", hint=HINT) from error
    except Exception as error:  # anybody's code
        raise ModelError(f"the architecture '{arch}' failed: {type(error).__name__}: {error}", hint=HINT) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"the architecture '{arch}' gave {type(module).__name__}, not an nn.Module", hint=HINT)
    return module


def _load_file(path: Path) -> ModuleType:
    name = f"ostiary_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"cannot import '{path}'", hint=HINT)
    source = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name while it is executed.
    sys.modules[name] = source
    spec.loader.exec_module(source)
    return source
