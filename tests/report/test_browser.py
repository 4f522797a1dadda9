"""The page in a real browser: no errors, and no sideways scrolling on a phone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ostiary.report import render_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--dump-dom",
]

# a page cannot measure itself without script, so a second page measures it in a frame as wide as a phone
PROBE = """<!doctype html><iframe width="420" height="900" style="border:0" src="page.html"></iframe><p id="told"></p>
<script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const drawn = [...page.images].filter((image) => image.naturalWidth).length;
  const hatch = getComputedStyle(page.querySelector(".hot")).fill;
  document.getElementById("told").textContent =
    `overflow ${root.scrollWidth - root.clientWidth} pictures ${drawn} of ${page.images.length} hatch ${hatch}`;
};
</script>"""


def browse(folder: Path, name: str) -> tuple[str, list[str]]:
    """The page's DOM and what its console said."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", (folder / name).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_page_loads_without_errors_and_fits_a_phone(make, tmp_path):
    page = render_html([make("scan"), make("twin"), make("screen")])
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "probe.html").write_text(PROBE)
    dom, console = browse(tmp_path, "probe.html")
    assert console == []
    assert "overflow 0 " in dom
    count = page.count("<img ")
    assert f"pictures {count} of {count} " in dom
    assert 'hatch url("#hatch")' in dom


def test_the_policy_stops_what_an_attacker_adds(make, tmp_path):
    added = "<script>document.title = 'run'</script>"
    (tmp_path / "page.html").write_text(render_html([make("evaluate")]).replace("</body>", added + "</body>"))
    dom, console = browse(tmp_path, "page.html")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>run" not in dom
    assert "Measured: rates with 95 % intervals, no verdict" in dom
