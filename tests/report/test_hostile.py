"""Everything in a record may have been written by an attacker."""

import hashlib
import re
import warnings

import numpy as np
import pytest

from ostiary.core.records import Caution
from ostiary.report import render_html, render_markdown
from ostiary.report.arrays import Arrays

EVIL = "<script>alert(1)</script>"


def test_markup_in_names_is_shown_not_run(make):
    record, folder = make("scan")
    coverage = record.coverage.model_copy(
        update={"classes": (*record.coverage.classes[:7], EVIL, "'\"><img src=x>", "{{ 7*7 }}")}
    )
    digests = {EVIL: '" onload="x'}
    update = {"subject": f"{EVIL}.safetensors", "command": ("ostiary", "scan", EVIL), "coverage": coverage}
    page = render_html([(record.model_copy(update=update | {"digests": digests, "id": EVIL, "created": EVIL}), folder)])
    assert "<script" not in page
    assert "<img src=x" not in page
    assert ' onload="' not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page


def test_long_text_is_cut_everywhere(make):
    record, folder = make("scan")
    long = "A" * 100_000
    result = record.results[0].model_copy(
        update={
            "reason": long,
            "method": f"scan.{long}",
            "params": {long: long},
            "cautions": (Caution(code=long, text=long),),
        }
    )
    page = render_html(
        [
            (
                record.model_copy(
                    update={
                        "subject": long,
                        "results": (result,),
                        "command": (long, long),
                        "digests": {long: long},
                        "coverage": record.coverage.model_copy(update={"classes": (long,) * 10}),
                    }
                ),
                folder,
            )
        ]
    )
    assert len(page) < 150_000
    assert max(map(len, re.findall("A+", page))) <= 6000


def test_direction_and_control_characters_are_made_visible(make):
    record, folder = make("twin")
    page = render_html([(record.model_copy(update={"subject": "m\u202etxt.exe\x00\u200b\nx"}), folder)])
    assert not set("\u202e\x00\u200b") & set(page)
    assert r"m\u202etxt.exe\x00\u200b\nx" in page


def test_many_rows_are_cut_and_counted(make):
    record, folder = make("scan")
    finding = record.results[0].findings[0]
    result = record.results[0].model_copy(update={"findings": (finding,) * 5000})
    page = render_html([(record.model_copy(update={"results": (result,)}), folder)])
    assert page.count("OS201") == 100
    assert "4900 more rows are in the record" in page


def test_a_thousand_classes_fit(make, with_array):
    record, folder = make("scan")
    evidence = record.results[0].evidence
    many = tuple(evidence.per_class[k % 10].model_copy(update={"label": k}) for k in range(1000))
    result = record.results[0].model_copy(update={"evidence": evidence.model_copy(update={"per_class": many})})
    record = record.model_copy(update={"results": (result,)})
    masks = np.random.default_rng(0).random((1000, 32, 32), np.float32)
    page = render_html([with_array((record, folder), "neural-cleanse-mask", masks)])
    assert "64 of 1000 classes, most suspicious first" in page
    assert "40 of 1000 classes" in page
    assert len(page.encode()) < 2_000_000


def broken(case, path, record, name, entry):
    """Damage the file or its entry; gives the record to render."""
    artifact = record.artifacts[name]
    if case == "missing":
        path.unlink()
    elif case == "tampered":
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif case == "outside":
        (path.parents[2] / "outside.npy").write_bytes(path.read_bytes())
        artifact = artifact.model_copy(update={"path": "../outside.npy"})
    elif case == "link":
        (path.parents[2] / "outside.npy").write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(path.parents[2] / "outside.npy")
    elif case == "shape":
        artifact = artifact.model_copy(update={"shape": (10, 1, 1)})
    elif case == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        artifact = entry(path, artifact.path, (1,))
    elif case == "text":
        path.write_text("not an array")
        artifact = entry(path, artifact.path, artifact.shape)
    elif case == "claims too much":
        header = path.read_bytes()[:128].replace(b"(10, 28, 28), }     ", b"(9999999, 28, 28), }")
        path.write_bytes(header + b"\0" * 64)
        artifact = entry(path, artifact.path, (9999999, 28, 28))
    return record.model_copy(update={"artifacts": record.artifacts | {name: artifact}})


CASES = ["missing", "tampered", "outside", "link", "shape", "pickle", "text", "claims too much"]


@pytest.mark.parametrize("case", CASES)
def test_an_array_that_is_not_as_recorded_is_not_shown(make, entry, case):
    record, folder = make("scan")
    name = "neural-cleanse-mask"
    record = broken(case, folder / record.artifacts[name].path, record, name, entry)
    page = render_html([(record, folder)])
    assert f"artifact unreadable: {name}:" in page
    assert "data:image/png" not in page
    assert "97.5 %" in page
    assert Arrays(record, folder).get(name, 3) is None


def test_a_sound_array_is_read(make):
    record, folder = make("scan")
    arrays = Arrays(record, folder)
    assert arrays.get("neural-cleanse-mask", 3).shape == (10, 28, 28)
    assert arrays.get("absent", 3) is None
    assert arrays.problems == {}
    assert arrays.get("neural-cleanse-mask", 2) is None
    assert list(arrays.problems) == ["neural-cleanse-mask"]


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 3e38, 0.0])
def test_extreme_values_are_drawn_without_warning(make, with_array, fill):
    scan = with_array(make("scan"), "neural-cleanse-mask", np.full((10, 28, 28), fill, np.float32))
    scan = with_array(scan, "neural-cleanse-pattern", np.full((10, 3, 28, 28), fill, np.float32))
    screen = with_array(make("screen"), "activation-clustering-scores", np.full(2000, fill))
    screen = with_array(screen, "activation-clustering-pca", np.full((50, 4), fill))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = render_html([scan, screen])
    assert "nan" not in "".join(re.findall(r' d="[^"]*"', page))


def test_arrays_of_another_shape_than_the_role_are_left_out(make, with_array):
    pair = with_array(make("scan"), "neural-cleanse-sample", np.zeros((3, 9, 9), np.float32))
    page = render_html([with_array(pair, "neural-cleanse-pattern", np.zeros((10, 2, 28, 28), np.float32))])
    assert "stamped sample" not in page
    assert 'alt="mask of class 7"' in page


def test_limits_in_the_configuration_may_be_anything(make):
    record, folder = make("twin")
    for limits in (None, 3, [], {"scan.neural-cleanse": 7}, {"scan.neural-cleanse": {"anomaly_index": {"low": "x"}}}):
        page = render_html([(record.model_copy(update={"config": {"limits": limits}}), folder)])
        assert "limit ≥" not in page


def test_markdown_cannot_be_broken_out_of(make):
    record, _ = make("scan")
    evil = "a|b`c`\n# d <img> [x](http://y) @team **z** www.y"
    result = record.results[0].model_copy(update={"reason": evil})
    text = render_markdown([record.model_copy(update={"results": (result,), "command": ("ostiary", "```\n# x")})])
    row = next(line for line in text.splitlines() if line.startswith("| neural-cleanse"))
    assert row.replace(r"\|", "").count("|") == 8
    for raw in ("<img>", "[x](", "://y", "@team", "**z", "www.y", "\n# "):
        assert raw not in row
    assert "````\nostiary '```\\n# x'\n````" in text


def test_sha256_of_the_fixture_is_that_of_the_file(make):
    record, folder = make("guard")
    artifact = record.artifacts["strip-scores"]
    assert hashlib.sha256((folder / artifact.path).read_bytes()).hexdigest() == artifact.sha256
