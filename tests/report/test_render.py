"""The page: every block for its record, the same bytes twice, nothing loaded from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ostiary.core.errors import ConfigError, OutputError
from ostiary.report import render_html, write_html
from ostiary.report.render import MAX_PAGE

BANNED = re.compile(
    r"\b(?:safe|clean|cleaned|harmless|trustworthy)\b|[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]", re.IGNORECASE
)
TEMPLATES = Path(__file__).parents[2] / "src/ostiary/report/templates"


def visible(page: str) -> str:
    """The text a reader sees, white space folded."""

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.parts, self.hidden = [], 0

        def handle_starttag(self, tag, attrs):
            self.hidden += tag in ("style", "script")

        def handle_endtag(self, tag):
            self.hidden -= tag in ("style", "script")

        def handle_data(self, data):
            if not self.hidden:
                self.parts.append(data)

    reader = Reader()
    reader.feed(page)
    return re.sub(r"\s+", " ", " ".join(reader.parts))


BLOCKS = {
    "scan": [
        "Backdoor: a trigger was confirmed on held-out trusted data",
        "ostiary repair MODEL --trusted DATA -o NEW.safetensors",
        "Coverage",
        "needs reference models of the same architecture",
        "OS201",
        "backdoor, confirmed",
        "class 7 (seven)",
        "Recovered trigger",
        "stamped sample",
        "flip rate of the recovered trigger, held-out images",
        "97.5 % [94.3, 98.9] 195 of 200",
        "All classes",
        "limit ≥ 2",
        "limit ≥ 3",
        "limits are within the model",
        "OS901",
        "Provenance",
        "ostiary scan digits-badnets.safetensors --trusted 'my data/trusted' -o out.html",
    ],
    "twin": ["No evidence found by 1 of 2 methods (1 skipped)", "skipped: reference-bank", "within the limit"],
    "screen": [
        "Suspect: 1 finding beyond the limit",
        "ostiary screen DATA --export-suspects ids.csv",
        "Activations",
        "second group (n 60)",
        "train/00000",
        "train/00900",
        "score 6.2",
        "not suspected (n 1,920)",
        "Removal curve",
        "20 samples are unscored",
    ],
    "repair": ["accuracy", "−96.0 points", "Accuracy per class", "trusted, selection half", "ostiary scan NEW"],
    "evaluate": ["attack success rate", "98.9 % [98.4, 99.3] 1,781 of 1,800", "0.0812", "Accuracy per class"],
    "guard": ["false rejection of trusted samples", "1.2 % [0.6, 2.6] 6 of 500", "limit −0.85", "trusted (n 500)"],
    "harden": ["8.3 % [1.5, 35.4] 1 of 12", "until isolated samples had lost their label", "ostiary scan NEW"],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_each_record_shows_its_blocks(make, name):
    text = visible(render_html([make(name)]))
    assert [words for words in BLOCKS[name] if words not in text] == []


def test_blocks_without_data_are_absent(make):
    text = visible(render_html([make("evaluate")]))
    for words in ("Recovered trigger", "Suspects", "Before and after", "Guard", "Cautions", "Comparison", "Missing"):
        assert words not in text


def test_a_repair_that_nothing_measured_says_so(make):
    record, folder = make("repair")
    bare = record.results[0].evidence.model_copy(update={"before": {}, "after": {}, "per_class_before": ()})
    result = record.results[0].model_copy(update={"evidence": bare})
    text = visible(render_html([(record.model_copy(update={"results": (result,)}), folder)]))
    assert "Nothing was measured: there were no trusted samples" in text and "−96.0 points" not in text


def test_a_refused_repair_says_that_nothing_was_written(make):
    record, folder = make("repair")
    config = {**record.config, "refused": "accuracy fell by 9 points, more than --max-loss 2"}
    text = visible(render_html([(record.model_copy(update={"config": config}), folder)]))
    assert "Nothing was written: accuracy fell by 9 points" in text and "ostiary scan NEW" not in text


def test_a_repair_that_was_skipped_says_so(make):
    record, folder = make("repair")
    result = record.results[0].model_copy(update={"status": "skipped", "reason": "needs a trigger", "evidence": None})
    text = visible(render_html([(record.model_copy(update={"results": (result,), "config": {}}), folder)]))
    assert "Nothing was written: needs a trigger" in text and "ostiary scan NEW" not in text


def test_attack_success_is_said_only_where_the_trigger_is_known(make):
    for name in BLOCKS:
        assert ("attack success" in visible(render_html([make(name)])).lower()) == (name == "evaluate")


def test_several_records_begin_with_a_comparison(make):
    page = render_html([make("scan"), make("twin"), make("repair")])
    head = visible(page.split('<article id="r1"')[0])
    for words in ("Comparison of 3 records", "backdoor", "none found", "measured", "Model scans side by side"):
        assert words in head
    assert page.count("<article") == 3
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_compared_scans_share_one_axis(make):
    page = render_html([make("scan"), make("twin")])
    figures = re.findall(r"<svg role=.*?</svg>", page.split('<article id="r1"')[0], re.DOTALL)
    lines = [re.search(r'class="limit" d="M([\d.]+)', figure).group(1) for figure in figures]
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_only_classes_that_meet_every_limit_are_hatched(make):
    for name, hatched in (("scan", 3), ("twin", 0)):
        page = render_html([make(name)])
        assert "limit ≥ 0.75" in page
        assert page.count('<rect class="hot"') == hatched


def test_same_records_same_bytes(make):
    records = [make(name) for name in BLOCKS]
    assert render_html(records) == render_html(records)


def test_page_is_one_small_file_that_loads_nothing(make):
    page = render_html([make(name) for name in BLOCKS])
    assert len(page.encode()) < MAX_PAGE
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "<link" not in page
    sources = re.findall(r'\bsrc="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(target.startswith("#") for target in re.findall(r'\bhref="([^"]*)"', page))
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#hatch"}


def test_every_drawing_has_a_title_a_description_and_its_data(make):
    page = render_html([make(name) for name in BLOCKS])
    drawings = re.findall(r'<figure class="drawing">.*?</figure>', page, re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        assert re.search(r"<title>[^<]+</title><desc>[^<]+</desc>", drawing)
        assert re.search(r"<details><summary>Data</summary>.*<td", drawing, re.DOTALL)


def test_no_verdict_word_that_promises_anything(make):
    text = visible(render_html([make(name) for name in BLOCKS]))
    assert BANNED.findall(text) == []
    for template in TEMPLATES.iterdir():
        assert BANNED.findall(template.read_text()) == []


def test_without_samples_no_picture_of_data_but_masks(make):
    scan, screen = make("scan"), make("screen")
    full, bare = render_html([scan, screen]), render_html([scan, screen], samples=False)
    for words in ('alt="a trusted sample"', 'alt="the stamped sample"', 'alt="suspect train/00000"', 'alt="nearest '):
        assert words in full
        assert words not in bare
    assert 'alt="mask of class 7"' in bare
    assert 'alt="pattern, towards class 7 (seven)"' in bare
    assert "train/00000" in bare


def test_a_page_beyond_the_limit_is_refused(make, monkeypatch):
    monkeypatch.setattr("ostiary.report.render.MAX_PAGE", 10_000)
    with pytest.raises(OutputError, match="larger than 2 MB"):
        render_html([make("scan")])


def test_pictures_beyond_the_budget_are_counted(make, monkeypatch):
    monkeypatch.setattr("ostiary.report.render.PICTURES", 3000)
    assert "pictures left out to keep this file small" in visible(render_html([make("scan")]))


def test_no_records_no_page():
    with pytest.raises(ConfigError, match="at least one record"):
        render_html([])


def test_write_is_whole_and_never_overwrites(make, tmp_path):
    out = tmp_path / "scan.html"
    write_html([make("scan")], out)
    first = out.read_bytes()
    assert first.startswith(b"<!doctype html>")
    assert first == render_html([make("scan")]).encode()
    with pytest.raises(OutputError, match="exists"):
        write_html([make("twin")], out)
    assert out.read_bytes() == first
    assert list(tmp_path.glob(".*")) == []


def test_classes_without_a_mask_size_are_unscored(make):
    record, folder = make("twin")
    evidence = record.results[0].evidence
    rows = tuple(
        s.model_copy(update={"score": None, "measures": {}}) if s.label == 3 else s for s in evidence.per_class
    )
    result = record.results[0].model_copy(update={"evidence": evidence.model_copy(update={"per_class": rows})})
    text = visible(render_html([(record.model_copy(update={"results": (result,)}), folder)]))
    assert "3 (three) unscored" in text
    assert text.count("unscored") == 1


def test_write_says_why_it_cannot(make, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        write_html([make("scan")], blocked / "scan.html")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("screen", "activation-clustering: suspected 60 of 1,980 scored 60 of 1,980 scored"),
        ("repair", "flip rate of the recovered trigger, after 1.5 % [0.5, 4.3] 3 of 200 1.5 %"),
        ("evaluate", "attack success rate 98.9 % [98.4, 99.3] 1,781 of 1,800 98.9 %"),
        ("guard", "strip: false rejection 1.2 % [0.6, 2.6] 6 of 500 1.2 %"),
    ],
)
def test_two_of_a_kind_are_compared_by_their_key_values(make, name, words):
    pair = make(name)
    assert words in visible(render_html([pair, pair]).split('<article id="r1"')[0])


def test_reference_models_are_named_where_limits_come_from_them(make):
    record, folder = make("scan")
    calibration = record.calibration.model_copy(update={"id": "digits-2026", "models": 40, "description": "small nets"})
    text = visible(render_html([(record.model_copy(update={"calibration": calibration}), folder)]))
    assert "Limits from 40 reference models (digits-2026): small nets." in text
    assert "within the model, the other classes" not in text


def test_methods_are_named_where_several_left_evidence(make):
    record, folder = make("scan")
    other = record.results[0].model_copy(update={"method": "scan.other"})
    text = visible(render_html([(record.model_copy(update={"results": (*record.results, other)}), folder)]))
    assert "Classes (neural-cleanse)" in text
    assert "Classes (other)" in text
