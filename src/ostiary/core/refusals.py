"""Codes of refusals: OS11x to OS15x what is in a file, OS7xx who vouches for it and what its bytes are."""

from ostiary.core.code import Code

FILE_REFUSALS: tuple[Code, ...] = ()

REFUSALS: tuple[Code, ...] = FILE_REFUSALS
