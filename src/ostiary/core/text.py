"""Untrusted text as one line that can be printed."""


def one_line(text: str) -> str:
    """`text` on one line with every character that is not printable escaped.

    Names of files, classes and weights, and the texts of data sets, come from untrusted files; an escape sequence in
    them could rewrite what the terminal shows.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
