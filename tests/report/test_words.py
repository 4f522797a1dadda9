"""Verdicts, next steps and what was not covered, in words."""

import pytest

from ostiary.report import render_html
from ostiary.report.words import next_step, not_covered, verdict_sentence


def incomplete(record):
    """The record of a scan whose other method failed after three classes had been left out."""
    done, other = record.results
    done = done.model_copy(update={"status": "partial", "examined": tuple(f"class:{k}" for k in range(7))})
    other = other.model_copy(update={"status": "failed", "reason": "out of memory"})
    names = {"asked": (done.method, other.method), "ok": (), "partial": (done.method,), "failed": (other.method,)}
    coverage = record.coverage.model_copy(update=names | {"skipped": ()})
    update = {"results": (done, other), "coverage": coverage, "verdict": "incomplete", "interrupted": True}
    return record.model_copy(update=update)


def test_incomplete_says_what_is_missing(make):
    record, folder = make("twin")
    record = incomplete(record)
    assert verdict_sentence(record) == "Incomplete: 2 of 2 methods did not examine what was asked of them"
    words = not_covered(record)
    assert "failed: reference-bank; partial: neural-cleanse; 3 of 10 classes examined by no method" in words
    page = render_html([(record, folder)])
    assert "The run was interrupted: this record is partial." in page
    assert "7 of 10 classes" in page
    assert "out of memory" in page


def test_full_coverage_still_promises_nothing(make):
    record, _ = make("twin")
    full = record.coverage.model_copy(update={"asked": record.coverage.ok, "skipped": ()})
    assert "Other kinds of backdoor were not looked for" in not_covered(record.model_copy(update={"coverage": full}))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("scan", "ostiary repair MODEL --trusted DATA -o NEW.safetensors"),
        ("twin", ""),
        ("screen", "ostiary screen DATA --export-suspects ids.csv"),
        ("repair", "ostiary scan NEW.safetensors --trusted DATA"),
        ("harden", "ostiary scan NEW.safetensors --trusted DATA"),
        ("evaluate", ""),
    ],
)
def test_next_step(make, name, command):
    assert next_step(make(name)[0])[1] == command


def test_only_a_scan_speaks_of_held_out_trusted_data(make):
    record = make("screen")[0].model_copy(update={"verdict": "backdoor"})
    assert verdict_sentence(record) == "Backdoor: a finding was confirmed on data the search never saw"
