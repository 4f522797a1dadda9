"""JSON from strangers, read so that no two readers can take it for two things."""

import json
import math
from typing import Annotated, Any, NoReturn

from pydantic import Field, ValidationError

from ostiary.provenance.refusal import Reason, Refused

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A digest of 32 bytes as text."""
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
"""The name of a model or a set: one line without slashes."""
MAX_DAYS = 36_500
"""A hundred years: longer than anything here holds, and short of the last day that Python knows."""
Days = Annotated[float, Field(gt=0, le=MAX_DAYS)]


def first_error(error: ValidationError) -> str:
    """The first thing that pydantic found, on one line."""
    found = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, found['loc'])) or 'it'}: {found['msg']}"[:200]


def parse(data: bytes, where: str, *, limit: int) -> Any:
    """The value of a JSON text in UTF-8.

    Raises Refused when it is longer than `limit` bytes or nested deeper than Python reads (OS720), is no JSON or has
    NaN or infinity (OS721), or names a key twice in one object (OS722), which readers resolve in different ways.
    """
    if len(data) > limit:
        raise Refused([Reason("OS720", where, f"it has {len(data)} bytes, more than the limit of {limit}")])
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=lambda pairs: _once(pairs, where),
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise Refused([Reason("OS720", where, "it is nested too deep")]) from error
    except ValueError as error:
        raise Refused([Reason("OS721", where, f"it is not JSON: {error}")]) from error


def canonical(value: Any) -> bytes:
    """One text for one value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused([Reason("OS722", where, f"it has the key {twice[:60]!r} twice in one object")])
    return found


def _finite(text: str) -> float:
    """A number as it is written; one like 1e999 is infinity to Python, which cannot write it again."""
    found = float(text)
    return found if math.isfinite(found) else _no_number(text[:20])


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
