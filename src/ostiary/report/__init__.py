"""Records in; one HTML file, a Markdown text, SARIF or JUnit out. Never opens a model."""

from ostiary.report.junit import render_junit
from ostiary.report.markdown import render_markdown
from ostiary.report.outcome import Outcome, of_decision, of_record
from ostiary.report.render import render_html, write_html
from ostiary.report.sarif import render_sarif

__all__ = [
    "Outcome",
    "of_decision",
    "of_record",
    "render_html",
    "render_junit",
    "render_markdown",
    "render_sarif",
    "write_html",
]
