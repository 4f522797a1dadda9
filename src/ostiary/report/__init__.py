"""Records in, one HTML file or a Markdown text out. Never opens a model."""

from ostiary.report.markdown import render_markdown
from ostiary.report.render import render_html, write_html

__all__ = ["render_html", "render_markdown", "write_html"]
