"""Rows leave a store and enter another unchanged; damage is named; results of others stay apart."""

import json
from pathlib import Path

import pytest
from made_rows import before, repaired
from test_backdoorbench import ROWS

from ostiary.bench.backdoorbench import COLUMNS
from ostiary.bench.cells import digest_of
from ostiary.bench.index import rows
from ostiary.bench.store import Store
from ostiary.bench.transfer import export_rows, import_file, their_rows
from ostiary.core.errors import ConfigError, FormatError, OutputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    made.keep({**before(90, 100), "key": digest_of("one")})
    made.keep({**repaired(88, 3), "key": digest_of("two")})
    made.fail({**repaired(0, 0), "key": digest_of("three"), "status": "timeout", "reason": "not done", "rates": {}})
    return made


def test_another_store_gets_the_same_rows(store: Store, tmp_path: Path) -> None:
    export_rows(rows(store), tmp_path / "rows.jsonl")
    other = Store(tmp_path / "other", create=True)
    taken = import_file(other, tmp_path / "rows.jsonl")
    assert (taken.new, taken.known, taken.damaged) == (3, 0, ())
    assert rows(other) == rows(store) and set(other.failures()) == {digest_of("three")}
    again = import_file(other, tmp_path / "rows.jsonl")
    assert again.known == 2 and len(other.finished()) == 2
    with pytest.raises(OutputError, match="exists already"):
        export_rows(rows(store), tmp_path / "rows.jsonl")


def test_a_changed_line_is_named_and_left_out(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    export_rows(rows(store), file)
    lines = file.read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if json.loads(line)["row"]["key"] == digest_of("two"))
    lines[at] = lines[at].replace('"k": 3,', '"k": 0,')
    file.write_text("\n".join([*lines, "{", "[]"]) + "\n", encoding="utf-8")
    other = Store(tmp_path / "other", create=True)
    taken = import_file(other, file)
    assert taken.new == 2 and len(taken.damaged) == 3
    assert taken.damaged[0] == f"line {at + 1}: its content does not match its digest"
    assert digest_of("two") not in other.finished()


def test_results_of_others_are_kept_apart(store: Store, tmp_path: Path) -> None:
    lines = [",".join(COLUMNS), *(",".join([str(i), *row]) for i, row in enumerate(ROWS))]
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert import_file(store, tmp_path / "results.csv").new == len(ROWS)
    assert {row.origin for row in their_rows(store)} == {"BackdoorBench"} and len(rows(store)) == 3


def test_other_files_are_refused(store: Store, tmp_path: Path) -> None:
    for name, error in (("rows.txt", ConfigError), ("none.jsonl", FormatError), ("none.csv", FormatError)):
        with pytest.raises(error):
            import_file(store, tmp_path / name)
    assert their_rows(store) == ()
