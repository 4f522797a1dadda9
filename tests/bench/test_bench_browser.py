"""The leaderboard in a real browser: its script runs, sorts, and no other script does."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_rows import before, repaired, row, whole_store

from ostiary.bench.page import leaderboard
from ostiary.bench.render import render_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--enable-logging=stderr",
    "--dump-dom",
)  # fmt: skip

# The page lets no other script in, so a second page clicks in a frame as wide as a phone.
PROBE = """<!doctype html><iframe width="420" height="900" style="border:0" src="page.html"></iframe><p id="told"></p>
<script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const table = page.querySelector("#repairs table"), head = [...table.tHead.rows[0].cells];
  const column = (name) => head.findIndex((cell) => cell.textContent === name);
  const read = (name) => [...table.tBodies[0].rows].map((row) => row.cells[column(name)].firstChild.textContent);
  const click = (name) => { head[column(name)].querySelector("button").click(); return read("repair"); };
  const told = {overflow: root.scrollWidth - root.clientWidth, title: page.title, at_first: read("repair")};
  told.asr_down = click("ASR after");
  told.aria = head.map((cell) => cell.getAttribute("aria-sort")).filter(Boolean);
  told.asr_up = click("ASR after");
  told.name_down = click("repair");
  told.name_up = click("repair");
  document.getElementById("told").textContent = JSON.stringify(told);
};
</script>"""


def browse(folder: Path, name: str) -> tuple[str, list[str]]:
    """The page's DOM and what its console said."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", (folder / name).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_columns_sort_and_what_was_not_measured_stays_below(tmp_path: Path) -> None:
    rows = [
        before(98, 100), repaired(98, 9, defence="repair.b"), repaired(98, 100, defence="repair.a10"),
        repaired(98, 30, defence="repair.a9"), row("repair.lost", status="timeout", reason="too long"),
    ]  # fmt: skip
    (tmp_path / "page.html").write_text(render_html(leaderboard(rows)))
    (tmp_path / "probe.html").write_text(PROBE)
    dom, console = browse(tmp_path, "probe.html")
    assert console == []
    found = re.search(r'id="told">(\{.*?\})</p>', dom)
    assert found is not None
    told = json.loads(found[1])
    assert told["overflow"] == 0
    assert told["at_first"] == ["b", "a9", "a10", "lost"]
    assert told["asr_down"] == ["a10", "a9", "b", "lost"]
    assert told["aria"] == ["descending"]
    assert told["asr_up"] == ["b", "a9", "a10", "lost"]
    assert told["name_down"] == ["lost", "b", "a10", "a9"]
    assert told["name_up"] == ["a9", "a10", "b", "lost"]


def test_the_policy_stops_what_an_attacker_adds(tmp_path: Path) -> None:
    added = "<script>document.title = 'run'</script></body>"
    (tmp_path / "page.html").write_text(render_html(leaderboard(whole_store())).replace("</body>", added))
    dom, console = browse(tmp_path, "page.html")
    assert any("Content Security Policy" in line for line in console)
    assert "<title>run" not in dom
    assert "<button" in dom
