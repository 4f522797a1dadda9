"""Nearly equal texts: which are found, what a signature estimates, and that no size of a file or row is a trouble."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ostiary.cli.main import cli
from ostiary.core.errors import ConfigError, FormatError
from ostiary.provenance.samples import near, sorting
from ostiary.provenance.samples.near import Counts, near_groups, signature

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lk")]


def text(seed: int, words: int = 40) -> list[str]:
    return [str(word) for word in np.random.default_rng(seed).choice(WORDS, words)]


def changed(seed: int, at: int) -> str:
    words = text(seed)
    return " ".join([*words[:at], "other", *words[at + 1 :]])


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows() -> list[dict[str, object]]:
    """Sixty rows with nothing in common, but 3 and 50 differ by a word, 7 and 20 by case and marks, and 9 is 31."""
    found = [" ".join(text(seed)) for seed in range(60)]
    found[50] = changed(3, 39)
    found[20] = found[7].upper() + "!!"
    found[31] = found[9]
    return [{"id": f"r{at}", "text": one, "label": at % 2} for at, one in enumerate(found)]


def groups(path: Path) -> list[tuple[str, ...]]:
    return [tuple(identity for identity, _ in one.samples) for one in near_groups(path, Counts())]


def test_pairs_are_found_and_exact_copies_are_left_to_the_manifest(tmp_path: Path) -> None:
    found = list(near_groups(written(tmp_path / "a.jsonl", rows()), Counts()))
    assert sorted(tuple(identity for identity, _ in one.samples) for one in found) == [("r3", "r50"), ("r7", "r20")]
    by_first = {one.samples[0][0]: one for one in found}
    assert by_first["r7"].alike == 1.0 and 0.8 <= by_first["r3"].alike < 1.0
    assert by_first["r3"].samples == (("r3", "1"), ("r50", "0")) and by_first["r3"].text.startswith(text(3)[0])


def test_a_signature_estimates_what_two_texts_share() -> None:
    """Against the exact share of equal sequences of three words, at several distances."""
    for cut in (4, 10, 20, 30):
        one, other = text(1, 400), [*text(1, 400)[: 400 - 10 * cut], *text(2, 10 * cut)]
        sets = [{tuple(words[at : at + 3]) for at in range(len(words) - 2)} for words in (one, other)]
        exact = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        told = float((signature(" ".join(one)) == signature(" ".join(other))).mean())
        assert told == pytest.approx(exact, abs=0.2), cut


def test_mutant_order_of_words_counts() -> None:
    """A signature of single words would call these equal."""
    words = text(5)
    assert float((signature(" ".join(words)) == signature(" ".join(words[::-1]))).mean()) < 0.2


@pytest.mark.parametrize("short", ["", "one", "one two", "..."])
def test_short_texts_have_a_signature(short: str) -> None:
    assert signature(short).shape == (64,) and (signature(short) == signature(short.upper())).all()


def test_a_row_of_a_hundred_thousand_words_is_hashed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    long = " ".join(map(str, range(100_000)))
    whole = signature(long)
    monkeypatch.setattr(near, "BLOCK", 100)
    assert (signature(long[:20_000]) != whole).any() and (signature(" ".join(map(str, range(900)))) >= whole).all()


def test_what_is_found_does_not_depend_on_how_much_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.jsonl", rows())
    before = groups(path)
    monkeypatch.setattr(sorting, "RUN", 50)
    monkeypatch.setattr(sorting, "MOST_RUNS", 3)
    assert groups(path) == before != []


def test_damaged_rows_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", rows())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:10], b'{"text": "\xff\xfe", "label": 1}\n', b"{broken\n", *lines[10:]]))
    counts = Counts()
    found = [one.samples[1][0] for one in near_groups(path, counts)]
    assert sorted(found) == ["r20", "r50"] and (counts.rows, counts.damaged) == (60, 2)


def test_answers_count_with_their_prompts(tmp_path: Path) -> None:
    made = [{"prompt": " ".join(text(1)), "response": " ".join(text(answer))} for answer in (2, 3, 2)]
    made[2]["prompt"] = changed(1, 39)
    assert groups(written(tmp_path / "chat.jsonl", made)) == [("row-1", "row-3")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(FormatError, match=r"a\.jsonl\.gz: cannot be read"):
        list(near_groups(tmp_path / "a.jsonl.gz", Counts()))


@pytest.mark.parametrize("rows_later", [3, 5], ids=["shorter", "longer"])
def test_a_file_that_changes_between_the_two_reads_is_named(
    rows_later: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [("a", None, "x"), ("b", None, "y"), ("c", None, " ".join(text(1))), ("d", None, changed(1, 5))]
    later = [*first, ("e", None, "z")][:rows_later]
    reads = iter((first, later))

    def read(path: Path, counts: Counts) -> Iterator[tuple[str, str | None, str]]:
        for row in next(reads):
            counts.rows += 1
            yield row

    monkeypatch.setattr(near, "_rows", read)
    with pytest.raises(FormatError, match=r"a\.jsonl: changed while it was read"):
        list(near_groups(tmp_path / "a.jsonl", Counts()))


def test_the_report_names_them_beside_exact_copies(tmp_path: Path) -> None:
    path, manifest = written(tmp_path / "a.jsonl", rows()), tmp_path / "a.manifest"
    run = CliRunner().invoke
    assert run(cli, ["manifest", "make", str(path), "-o", str(manifest)]).exit_code == 0
    told = run(cli, ["manifest", "report", str(manifest), "--near", str(path)])
    assert told.exit_code == 0 and "r3 (1), r50 (0)" in told.output  # rows 9 and 31 are equal, with one label
    assert "2 groups of texts that are nearly equal" in told.output and "r31 (1), r9 (1)" in told.output
    found = json.loads(run(cli, ["manifest", "report", str(manifest), "--near", str(path), "--format", "json"]).output)
    assert len(found["near"]) == 2 and len(found["duplicates"]) == 1
    assert "near" not in json.loads(run(cli, ["manifest", "report", str(manifest), "--format", "json"]).output)
    bad = run(cli, ["manifest", "report", str(manifest), "--near", str(manifest)])
    assert isinstance(bad.exception, ConfigError)
