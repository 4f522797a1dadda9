"""The engines by name; nothing is imported until one is asked for."""

import difflib
import inspect
from importlib import import_module
from typing import Any

from ostiary.core.errors import ConfigError
from ostiary.engines.job import Engine

ENGINES = {
    "local": "ostiary.engines.local:LocalEngine",
    "ray": "ostiary.engines.ray:RayEngine",
    "slurm": "ostiary.engines.slurm:SlurmEngine",
}


def make_engine(name: str, **options: Any) -> Engine:
    """The engine of that name; options that are None count as not given.

    Raises ConfigError for an unknown engine or option (with a suggestion), and as the engine does.
    """
    if name not in ENGINES:
        raise ConfigError(f"no engine is called '{name}'", hint=_suggestion(name, ENGINES))
    module, _, attribute = ENGINES[name].partition(":")
    engine = getattr(import_module(module), attribute)
    given = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(engine).parameters
    for key in given:
        if key not in known:
            raise ConfigError(f"the engine '{name}' has no option '{key}'", hint=_suggestion(key, known))
    made: Engine = engine(**given)
    return made


def _suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
