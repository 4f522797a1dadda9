"""Reading BackdoorBench's leaderboard: an invented file in its layout; gaps are no numbers, damage is told by line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ostiary.bench.backdoorbench import COLUMNS, MAX_BYTES, read_backdoorbench
from ostiary.core.errors import FormatError

Write = Callable[..., Path]
ROWS = (
    ("toys", "net", "patch", "no defense", "0.1", "0.9", "1.0", "0.0"),
    ("toys", "net", "patch", "tune", "0.1", "0.88", "0.05", "0.8"),
    ("toys", "net", "blend", "no defense", "0.1", "0.9", "0.8", "0.1"),
    ("toys", "net", "blend", "tune", "0.1", "0.8", "0.0", "0.7"),
    ("toys", "net", "faint", "no defense", "0.1", "0.9", "0.3", "0.6"),
    ("toys", "net", "faint", "tune", "0.1", "0.94", "0.4", "0.5"),
    ("toys", "net", "warp", "no defense", "0.1", "", "", ""),
    ("toys", "net", "warp", "tune", "0.1", "0.9", "0.1", "0.8"),
    ("toys", "net", "patch", "prune", "0.1", "-1", "-1.0", "-1"),
    ("toys", "net", "blend", "prune", "0.1", "0.9", "0.9", "0.1"),
    ("toys", "net", "patch", "no defense", "0.01", "0.9", "0.6", "0.3"),
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(rows: Sequence[Sequence[str]] = ROWS, header: Sequence[str] = COLUMNS) -> Path:
        lines = [",".join(header), *(",".join([str(i), *row]) for i, row in enumerate(rows))]
        (tmp_path / "results.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "results.csv"

    return to_file


def changed(column: str, cell: str) -> list[Sequence[str]]:
    """The rows with one cell of the third changed."""
    row = list(ROWS[2])
    row[COLUMNS.index(column) - 1] = cell
    return [*ROWS[:2], row, *ROWS[3:]]


def test_rows_come_back_in_order_and_are_marked_as_theirs(write: Write) -> None:
    rows = read_backdoorbench(write())
    assert len(rows) == len(ROWS) and {row.origin for row in rows} == {"BackdoorBench"}
    first = rows[1]
    assert first.key == ("toys", "net", 0.1, "patch", "tune")
    assert (first.accuracy, first.success, first.robust, first.reason) == (0.88, 0.05, 0.8, "")


def test_blanks_and_sentinels_are_no_figures(write: Write) -> None:
    rows = read_backdoorbench(write())
    gaps = {i: row for i, row in enumerate(rows) if row.reason}
    assert gaps.keys() == {6, 8} and "blank" in gaps[6].reason and "-1" in gaps[8].reason
    assert all(row.accuracy is row.success is row.robust is None for row in gaps.values())


@pytest.mark.parametrize("column", ["test_acc", "test_asr", "test_ra"])
@pytest.mark.parametrize("cell", ["", " ", "-1"])
def test_one_gap_leaves_the_whole_row_without_figures(write: Write, column: str, cell: str) -> None:
    row = read_backdoorbench(write(changed(column, cell)))[2]
    assert column in row.reason and row.accuracy is row.success is row.robust is None


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("test_acc", "high", "test_acc is no number: 'high'"),
        ("test_asr", "nan", "test_asr is nan, outside 0..1"),
        ("test_asr", "inf", "outside"),
        ("test_ra", "-0.5", "outside"),
        ("test_ra", "91.3", "outside"),
        ("ratio", "", "ratio is no number"),
        ("ratio", "-1", "ratio is -1"),
        ("dataset", "", "dataset is no name"),
        ("attack_name", "a\x1b[2J", "attack_name is no name"),
        ("backbone", "x" * 101, "backbone is no name"),
        ("defense_name", "tune,0", "10 cells"),
        ("test_acc", '"0.9', "line 1"),
        ("attack_name", "patch", "the same cell as line 2"),
    ],
)
def test_damage_is_told_with_its_line(write: Write, column: str, cell: str, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        read_backdoorbench(write(changed(column, cell)))
    assert caught.value.hint and ("line 4" in str(caught.value) or cell.startswith('"'))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ([*COLUMNS, "secret"], "unknown columns 'secret'"),
        (COLUMNS[:-1], "missing columns 'test_ra'"),
        ([*COLUMNS, "ratio"], "columns twice"),
        (["", *COLUMNS[:0:-1]], "another order"),
    ],
)
def test_other_columns_are_refused(write: Write, header: Sequence[str], words: str) -> None:
    with pytest.raises(FormatError, match=f"line 1: .*{words}"):
        read_backdoorbench(write(header=header))


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with pytest.raises(FormatError, match="no such file"):
        read_backdoorbench(path)
    with pytest.raises(FormatError, match="cannot read"):
        read_backdoorbench(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="missing columns"):
        read_backdoorbench(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="UTF-8"):
        read_backdoorbench(path)
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(FormatError, match="at most"):
        read_backdoorbench(path)
