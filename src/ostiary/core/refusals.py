"""Codes of refusals: OS110 to OS149 what is in a file, OS7xx whose it is and whether its bytes are those signed."""

from ostiary.core.attestation_refusals import ATTESTATION_REFUSALS
from ostiary.core.bom_refusals import BOM_REFUSALS
from ostiary.core.code import Code
from ostiary.core.file_refusals import FILE_REFUSALS
from ostiary.core.gate_refusals import GATE_REFUSALS
from ostiary.core.sample_refusals import SAMPLE_REFUSALS
from ostiary.core.signature_refusals import SIGNATURE_REFUSALS
from ostiary.core.trust_refusals import CERTIFICATE_REFUSALS, LOAD_REFUSALS, TRUST_REFUSALS

REFUSALS: tuple[Code, ...] = (
    *FILE_REFUSALS,
    *SIGNATURE_REFUSALS,
    *GATE_REFUSALS,
    *TRUST_REFUSALS,
    *LOAD_REFUSALS,
    *CERTIFICATE_REFUSALS,
    *ATTESTATION_REFUSALS,
    *BOM_REFUSALS,
    *SAMPLE_REFUSALS,
)
