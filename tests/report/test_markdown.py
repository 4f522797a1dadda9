"""The text for a ticket."""

from ostiary.report import render_markdown


def test_ticket_has_verdict_findings_coverage_cautions_and_command(make):
    record, _ = make("scan")
    text = render_markdown([record])
    for words in (
        "**Backdoor: a trigger was confirmed on held-out trusted data**",
        "ostiary repair MODEL --trusted DATA -o NEW.safetensors",
        "### Findings",
        "| OS201 | backdoor, confirmed | class 7 (seven) |",
        "### Coverage",
        "| neural-cleanse | ok | 10 of 10 classes | 1 | 41.7 | - |  |",
        "| reference-bank | skipped | - | - | - | - | needs reference models of the same architecture |",
        "### Cautions",
        "### Reproduce",
        "Seed 7",
    ):
        assert words in text


def test_each_record_has_a_section_and_the_text_is_stable(make):
    records = [make("scan")[0], make("twin")[0]]
    text = render_markdown(records)
    assert text.count("## Model scan: digits") == 2
    assert "No evidence found by 1 of 2 methods (1 skipped)" in text
    assert text == render_markdown(records)
