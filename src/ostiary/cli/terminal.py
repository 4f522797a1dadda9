"""What is printed to a terminal: nothing in it may steer the terminal, and its reader may go away."""

import os
import sys


def one_line(text: str) -> str:
    """`text` on one line with every character that is not printable escaped.

    Names of files, classes and weights come from untrusted files; an escape sequence in them could
    rewrite what the terminal shows.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def drop_stdout() -> None:
    """Send what is still to be printed nowhere, so that Python does not try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
