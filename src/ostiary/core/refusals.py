"""Codes of refusals: OS11x to OS15x what is in a file, OS7xx who vouches for it and what its bytes are."""

from ostiary.core.code import Code
from ostiary.core.file_refusals import FILE_REFUSALS

REFUSALS: tuple[Code, ...] = FILE_REFUSALS
