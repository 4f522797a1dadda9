"""Which tensors a file of weights holds, as a signature states it: type and shape of each by name."""

from collections.abc import Mapping

from ostiary.provenance.files import shown
from ostiary.provenance.refusal import Reason
from ostiary.provenance.safetensors_header import Header, read_header
from ostiary.provenance.statement import TensorSpec


def specification(header: Header) -> dict[str, TensorSpec]:
    """Type and shape of each tensor, as a signature states them."""
    return {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}


def spec_reasons(signed: Mapping[str, Mapping[str, TensorSpec]], files: Mapping[str, memoryview]) -> list[Reason]:
    """Reasons (OS763) where the tensors of a safetensors file are not those of the signed specification."""
    reasons = []
    for name, wanted in signed.items():
        found = specification(read_header(files[name], shown(name))) if name in files else {}
        differ = [one for one in sorted(set(wanted) | set(found)) if wanted.get(one) != found.get(one)]
        if differ:
            one = differ[0]
            text = f"the tensor {one[:80]!r} is {_words(found.get(one))}, signed {_words(wanted.get(one))}"
            reasons.append(Reason("OS763", shown(name), text + (f" ({len(differ)} differ)" if differ[1:] else "")))
    return reasons


def _words(spec: TensorSpec | None) -> str:
    return "missing" if spec is None else f"{spec[0]} {'x'.join(map(str, spec[1])) or 'scalar'}"
