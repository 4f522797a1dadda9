"""The base of all parts of a record, and the one way in which a rate is written."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

Z95 = 1.959963984540054


class Frozen(BaseModel):
    """Base of all record parts: immutable, strict about keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rate(Frozen):
    """k of n, with its Wilson 95 % interval: the only way a rate is written.

    Wilson 1927, without continuity correction. n = 0 gives the value None and the interval [0, 1].
    """

    k: Annotated[int, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _drop_derived(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: v for key, v in data.items() if key not in ("value", "low", "high")}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.k > self.n:
            raise ValueError(f"a rate cannot be {self.k} of {self.n}")
        return self

    @classmethod
    def joined(cls, rates: Iterable[Self]) -> Self:
        """The rate over all of them."""
        rates = list(rates)
        return cls(k=sum(rate.k for rate in rates), n=sum(rate.n for rate in rates))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def value(self) -> float | None:
        """The share k / n; None when n is 0."""
        return self.k / self.n if self.n else None

    def _wilson(self) -> tuple[float, float]:
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.k / self.n, Z95 * Z95
        centre = p + z2 / (2 * self.n)
        half = Z95 * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n * self.n))
        scale = 1 + z2 / self.n
        low = 0.0 if self.k == 0 else (centre - half) / scale
        high = 1.0 if self.k == self.n else (centre + half) / scale
        return low, high

    @computed_field  # type: ignore[prop-decorator]
    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self._wilson()[0]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self._wilson()[1]

    def __str__(self) -> str:
        if self.value is None:
            return "not measured (n 0)"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] n {self.n}"
