"""Records to one HTML page, and the page to a file."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ostiary.core.errors import ConfigError, OutputError
from ostiary.core.files import refuse_existing, write_text
from ostiary.core.records import Record
from ostiary.report.arrays import Arrays
from ostiary.report.blocks import add_tests
from ostiary.report.build import chapter, comparison
from ostiary.report.models import Source
from ostiary.report.png import Album
from ostiary.report.words import finalize, show

MAX_PAGE = 2_000_000
PICTURES = 1_000_000


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("ostiary.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    add_tests(env)
    return env


def render_html(records: Sequence[tuple[Record, Path]], *, samples: bool = True) -> str:
    """One self-contained page about `records`, each given with the folder its arrays lie in.

    Same records, same text. With `samples` False no picture of the user's data is shown, recovered
    masks and patterns are. Raises ConfigError without records and OutputError when the page would
    be larger than 2 MB.
    """
    if not records:
        raise ConfigError("a report needs at least one record")
    budget = PICTURES // len(records)
    sources = [Source(record, Arrays(record, folder), Album(budget), samples) for record, folder in records]
    several = len(sources) > 1
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"Comparison of {len(sources)} records" if several else show(records[0][0].subject, 60),
            comparison=comparison(sources) if several else None,
            chapters=[chapter(source, f"r{i}") for i, source in enumerate(sources, 1)],
        )
    )
    if len(page.encode()) > MAX_PAGE:
        raise OutputError("the report would be larger than 2 MB", hint="render fewer records at a time")
    return page


def write_html(records: Sequence[tuple[Record, Path]], out: Path, samples: bool = True) -> None:
    """Write the page of `render_html` to `out`, whole or not at all.

    Raises OutputError when it exists or cannot be written.
    """
    refuse_existing(out)
    write_text(out, render_html(records, samples=samples))
