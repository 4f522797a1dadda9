"""What is printed to a terminal: nothing in it may steer the terminal, and its reader may go away."""

import os
import sys


def drop_stdout() -> None:
    """Send what is still to be printed nowhere, so that Python does not try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
