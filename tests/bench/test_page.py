"""The page and its three forms: nothing is blank, nothing a grid names can be markup, and the links lead somewhere."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from made_rows import before, repaired, row, whole_store
from test_published import CELLS
from test_verdict_words import BANNED

from ostiary.bench.page import leaderboard, select
from ostiary.bench.render import render_html, render_markdown, render_text, write_html
from ostiary.bench.sheet import DASH, Page, Table
from ostiary.core.errors import ConfigError, OutputError

EVIL = "<script>alert(1)</script>"
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "p", "nav", "a", "main", "h1", "h2", "h3", "dl", "div",
    "dt", "dd", "span", "section", "table", "thead", "tr", "th", "tbody", "td", "i", "svg", "path", "footer", "script",
}  # fmt: skip


@pytest.fixture(scope="module")
def page() -> Page:
    return leaderboard(whole_store(), theirs=CELLS)


def tables(page: Page) -> list[Table]:
    return [table for section in page.sections for table in section.tables]


def table(page: Page, title: str) -> Table:
    return next(one for one in tables(page) if one.title == title)


def column(one: Table, name: str) -> list[str]:
    return [cells[one.head.index(name)].text for cells in one.rows]


def forms(page: Page) -> list[str]:
    return [render_text(page), render_markdown(page), render_html(page)]


def test_every_row_fills_its_head(page: Page) -> None:
    for one in tables(page):
        assert {len(cells) for cells in one.rows} == {len(one.head)}, one.title
        assert all(cell.text for cells in one.rows for cell in cells), one.title


def test_each_attack_and_each_defence_has_its_section(page: Page) -> None:
    titles = {group: [one.title for one in page.sections if one.group == group] for group in ("attack", "defence")}
    assert len(titles["attack"]) == 11 and "wanet" in titles["attack"]
    assert sorted(titles["defence"]) == sorted(
        ["fine-tuning", "fine-pruning", "trigger-unlearning", "neural-cleanse", "activation-clustering", "strip",
         "spectral-signatures"]
    )  # fmt: skip
    attack = next(one for one in page.sections if one.title == "wanet")
    repairs = next(one for one in attack.tables if one.title == "Repairs")
    assert len(repairs.rows) == 3 * 2 * 2  # repairs, rates, seeds


def test_links_lead_to_sections(page: Page) -> None:
    slugs = [one.slug for one in page.sections]
    assert len(set(slugs)) == len(slugs)
    links = {cell.link for one in tables(page) for cells in one.rows for cell in cells if cell.link}
    assert links and links <= set(slugs)


def test_repairs_begin_with_the_best() -> None:
    rows = [before(98, 100), repaired(98, 50, defence="repair.a"), repaired(98, 0, defence="repair.b")]
    assert column(table(leaderboard(rows), "All repairs"), "repair") == ["b", "a"]


def test_a_failure_is_named_everywhere() -> None:
    rows = [before(98, 100), row("repair.ft", status="timeout", reason="not done after 9 s")]
    made = leaderboard(rows)
    assert column(table(made, "All repairs"), "failed") == ["1 of 1"]
    assert column(table(made, "All repairs"), "DER") == ["-"]
    glance = table(made, "Every attack against every defence")
    assert glance.rows[0][-1].text == "1 of 1 lost: timeout"
    assert column(table(made, "What was skipped, cut or failed"), "reason") == ["not done after 9 s"]
    attack = next(one for one in made.sections if one.group == "attack")
    assert column(attack.tables[1], "status") == ["timeout"]
    assert all("not done after 9 s" in text and "timeout" in text for text in forms(made))


def test_what_does_not_count_says_so() -> None:
    made = leaderboard([before(98, 20), repaired(98, 0)])
    cell = table(made, "Every attack against every defence").rows[0][-1]
    assert (cell.text, cell.spread) == ("not counted", "no ASR above 50 %")
    assert column(table(made, "Models in which the attack did not implant"), "counted in DER and solved") == ["no"]


def test_nothing_measured_is_a_dash() -> None:
    scan = row("scan.nc", measures={"found": 1.0, "target found": 1.0, "score": 2.0})
    made = table(leaderboard([before(98, 100), scan]), "All scans")
    for name in ("cross-entropy", "Brier", "AUROC against twins", "false alarms on twins"):
        assert made.rows[0][made.head.index(name)] == DASH
    assert column(made, "found") == ["1 of 1"]


def test_solved_by_rate_adds_up(page: Page) -> None:
    every, by_rate = table(page, "All repairs"), table(page, "Solved by poison rate")
    counts = {cells[0].text: re.findall(r"\d+", cells[every.head.index("solved")].text) for cells in every.rows}
    for cells in by_rate.rows:
        parts = [re.findall(r"\d+", cell.text) for cell in cells[2:] if cell != DASH]
        assert [sum(int(part[i]) for part in parts) for i in (0, 1)] == [int(n) for n in counts[cells[0].text]]


def test_theirs_are_apart_and_marked(page: Page) -> None:
    theirs = table(page, "Published by Somebody, not measured here")
    assert column(theirs, "measured by") == ["Somebody"]
    assert column(theirs, "solved") == ["1 of 2"]
    without = leaderboard(whole_store())
    assert [one for one in tables(page) if one is not theirs] == tables(without)
    assert all("Somebody" not in text for text in forms(without))


def test_one_attack_and_one_defence_can_be_selected(page: Page) -> None:
    assert [one.title for one in select(page, attack="wanet", defence="strip").sections] == ["wanet", "strip"]
    assert {one.group for one in select(page).sections} == {"overview"}
    with pytest.raises(ConfigError, match="no attack 'nonsense'") as error:
        select(page, attack="nonsense")
    assert "wanet" in str(error.value.hint)


def test_models_of_another_role_are_marked() -> None:
    assert any("develop" in note for note in leaderboard([before(98, 100, role="develop")]).notes)
    assert not any("chosen" in note for note in leaderboard([before(98, 100)]).notes)


def test_variants_under_one_name_are_told_apart() -> None:
    rows = [before(98, 100), repaired(98, 0), repaired(98, 50, defence_params={"lr": 0.5})]
    found = table(leaderboard(rows), "All repairs")
    assert column(found, "repair") == ["ft (lr=0.01)", "ft (lr=0.5)"]
    wide = leaderboard([*rows, before(98, 100, data="other"), repaired(98, 0, data="other")])
    assert sorted(column(table(wide, "All repairs"), "data")) == ["digits", "digits", "other"]


def test_an_empty_store_gives_an_empty_page() -> None:
    made = leaderboard([])
    assert made.sections == ()
    assert all(made.title in text for text in forms(made))


def test_same_rows_same_text() -> None:
    rows = whole_store()
    assert forms(leaderboard(rows)) == forms(leaderboard(rows[::-1]))


def test_nothing_is_called_what_it_is_not(page: Page) -> None:
    for text in forms(page):
        assert not BANNED.search(text)


# --- text and Markdown ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
def test_text_keeps_within_the_terminal(page: Page, width: int) -> None:
    # a single column beside the name is never cut
    assert max(map(len, render_text(select(page), width=width).splitlines())) <= max(width, 100)


def test_a_cut_table_names_its_rows_in_every_block() -> None:
    rows = [before(98, 100, seed=seed) for seed in (11, 12)]
    rows += [repaired(98, 0, seed=seed) for seed in (11, 12)]
    text = render_text(select(leaderboard(rows), attack="badnets"), width=70)
    blocks = [block for block in text[text.index("Repairs") :].split("\n\n") if block.strip()]
    assert len(blocks) > 2
    for block in blocks:
        assert [re.search(rf"ft .*10 % .*{seed}", block) is not None for seed in (11, 12)] == [True, True]


def test_text_tells_value_and_interval() -> None:
    text = render_text(leaderboard([before(98, 100), repaired(98, 0)]))
    assert re.search(r"1 of 1\b", text) and "100 % [21, 100]" in text


def test_names_cannot_steer_a_terminal() -> None:
    text = render_text(
        leaderboard([before(98, 100, attack="a\x1b[2J\u202eb"), repaired(98, 0, attack="a\x1b[2J\u202eb")])
    )
    assert "\x1b" not in text and "\u202e" not in text


def test_markdown_tables_are_whole(page: Page) -> None:
    rows = [line for line in render_markdown(page, level=2).splitlines() if line.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert len(rows) > 400 and min(bars) > 3
    names = re.findall(r'<a id="([^"]+)"', render_markdown(page))
    assert set(re.findall(r"\]\(#([^)]+)\)", render_markdown(page))) <= set(names)


# --- HTML -----------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Every tag with its attributes, and whether all of them are closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_whole_and_small() -> None:
    rows = [*whole_store(0), *(one | {"data": "other", "model_key": one["model_key"] + "b"} for one in whole_store(1))]
    page = render_html(leaderboard(rows[:600]))
    parser = Tags()
    parser.feed(page.removeprefix("<!doctype html>"))
    assert parser.open == []
    assert len(page.encode()) < 2_000_000
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_only_our_script_may_run(page: Page) -> None:
    text = render_html(page)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1] == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def evil_rows() -> list[dict[str, Any]]:
    names: dict[str, Any] = {"attack": f"a|{EVIL}](x)", "data": EVIL, "model": f'"{EVIL}', "params": {EVIL: EVIL}}
    rows = [before(98, 100, **names), repaired(98, 0, defence=f"repair.{EVIL}", **names)]
    return [*rows, row("repair.x", status="failed", reason=f"{EVIL} @someone https://example.org", **names)]


def test_markup_in_names_is_shown_not_run() -> None:
    page = leaderboard(evil_rows())
    text = render_html(page)
    assert text.count("<script") == 1 and "&lt;script&gt;" in text
    parser = Tags()
    parser.feed(text.removeprefix("<!doctype html>"))
    assert {tag for tag, _ in parser.seen} <= TAGS
    assert not any(name.startswith("on") for _, attrs in parser.seen for name in attrs)
    markdown = render_markdown(page)
    assert "<script" not in markdown and "https://" not in markdown and "@someone" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows[:3]} == {len(re.findall(r"(?<!\\)\|", rows[0]))}


def test_long_names_are_cut() -> None:
    long = "A" * 50_000
    page = leaderboard([before(98, 100, attack=long), repaired(98, 0, attack=long, params={"x": long})])
    for text in forms(page):
        assert len(text) < 60_000


def test_a_page_overwrites_nothing(tmp_path: Any) -> None:
    out = tmp_path / "table.html"
    page = leaderboard([before(98, 100)])
    write_html(page, out)
    assert out.read_text() == render_html(page)
    with pytest.raises(OutputError, match="exists already"):
        write_html(page, out)
