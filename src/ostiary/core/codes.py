"""Stable codes of findings, refusals and cautions. A code is never used again for something else."""

from ostiary.core.cautions import CAUTIONS
from ostiary.core.code import Code
from ostiary.core.errors import ConfigError
from ostiary.core.federated_codes import FEDERATED_CAUTIONS, FEDERATED_REFUSALS
from ostiary.core.findings import FINDINGS
from ostiary.core.guard_codes import GUARD_FINDINGS
from ostiary.core.refusals import REFUSALS

CODES: dict[str, Code] = {
    code.id: code
    for code in (*FINDINGS, *GUARD_FINDINGS, *CAUTIONS, *REFUSALS, *FEDERATED_REFUSALS, *FEDERATED_CAUTIONS)
}


def explain(code: str) -> Code:
    """Look a code up; raises ConfigError for an unknown one."""
    try:
        return CODES[code.upper()]
    except KeyError:
        raise ConfigError(f"unknown code '{code}'", hint=f"known codes: {', '.join(sorted(CODES))}") from None
