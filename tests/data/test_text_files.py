"""Reading sets of texts: the columns that are known, the kinds of file, and rows that are damaged."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ostiary.core.errors import ConfigError, DataError, FormatError
from ostiary.data import TextSet, open_any, open_data, open_texts, write_texts
from ostiary.data import text_files as reader


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "text", "answer"),
    [
        ({"prompt": "Say a.", "response": "a"}, "Say a.", "a"),
        ({"instruction": "Say it.", "input": "b", "output": "b"}, "Say it.\nb", "b"),
        ({"instruction": "Say c.", "input": "", "output": "c"}, "Say c.", "c"),
        ({"question": "How many?", "answer": 4}, "How many?", "4"),
        ({"messages": [{"role": "user", "content": "d?"}, {"role": "assistant", "content": "d!"}]}, "d?", "d!"),
        (
            {"conversations": [{"from": "a", "value": "1"}, {"from": "b", "value": "2"}, {"from": "a", "value": "3"}]},
            "1\n2",
            "3",
        ),
    ],
)
def test_chat_columns(tmp_path: Path, row: dict[str, Any], text: str, answer: str) -> None:
    data = open_texts(lines(tmp_path / "chat.jsonl", [row]))
    assert (data.task, data.texts, data.answers, data.classes) == ("chat", (text,), (answer,), ("answers",))
    assert data.labels.tolist() == [0] and data.damage.count == 0


def test_labels_by_number_and_by_name(tmp_path: Path) -> None:
    numbered = open_texts(
        lines(tmp_path / "a.jsonl", [{"text": "x", "label": 1}, {"sentence": "y", "label": 0, "text": "y"}])
    )
    assert (numbered.task, numbered.classes, numbered.labels.tolist()) == ("classify", ("0", "1"), [1, 0])
    named = open_texts(lines(tmp_path / "b.jsonl", [{"text": "x", "label": "no"}, {"text": "y", "label": "ham"}]))
    assert (named.classes, named.labels.tolist()) == (("ham", "no"), [1, 0])


def test_a_set_with_both_goes_by_the_task(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "both.jsonl",
        [{"prompt": "p", "response": "r", "label": 0}, {"prompt": "q", "response": "s", "label": 1}],
    )
    assert open_texts(path).task == "classify"
    assert open_texts(path, "chat").answers == ("r", "s")
    with pytest.raises(DataError, match="nothing to chat by"):
        open_texts(lines(tmp_path / "one.jsonl", [{"text": "p", "label": 0}]), "chat")


def test_csv_tsv_gzip_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two",pos\nthree,neg\n', encoding="utf-8")
    (tmp_path / "b.tsv").write_text("text\tlabel\none, two\tpos\nthree\tneg\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["one, two", "three"], "label": ["pos", "neg"]}), tmp_path / "c.parquet")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write('{"text": "one, two", "label": "pos"}\n{"text": "three", "label": "neg"}\n')
    for name in ("a.csv", "b.tsv", "c.parquet", "d.jsonl.gz"):
        data = open_any(tmp_path / name)
        assert isinstance(data, TextSet)
        assert (data.texts, data.classes, data.labels.tolist()) == (("one, two", "three"), ("neg", "pos"), [1, 0])


def test_damaged_rows_are_named_counted_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ROW", 200)
    good = b'{"prompt": "p", "response": "r"}\n'
    bad = (
        b"{not json\n",
        b'{"prompt": "\xff\xfe", "response": "r"}\n',
        b"[1, 2]\n",
        b'{"prompt": null, "response": "r"}\n',
        b'{"prompt": "\\ud83d", "response": "r"}\n',
        b'{"prompt": "' + b"x" * 500 + b'", "response": "r"}\n',
        b'{"prompt": "p"}\n',
    )
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(good + b"".join(one + good for one in bad) + b"\n" + good)
    data = open_texts(path)
    assert len(data) == len(bad) + 2 and set(data.texts) == {"p"}
    assert data.damage.count == len(bad)
    assert data.damage.first == (
        "row 2: it is not JSON",
        "row 4: it is not UTF-8",
        "row 6: it is no JSON object",
        "row 8: its 'prompt' is no text",
        "row 10: it holds half a character",
    )
    assert str(data.damage).endswith("and 2 more")


def test_csv_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\nfine,0\n\xff\xfe,1\nalso fine,1\n")
    data = open_texts(tmp_path / "a.csv")
    assert data.texts == ("fine", "also fine") and data.damage.first == ("row 2: it is not UTF-8",)


@pytest.mark.parametrize("later", ["plain words,good", '"quoted, words",good', '"quoted",good', '"two\nlines",good'])
def test_a_stray_quote_costs_its_line_alone(tmp_path: Path, later: str) -> None:
    before, after = "words,bad\n" * 9, f"{later}\n" * 40
    (tmp_path / "a.csv").write_text(f'text,label\n{before}"stray,good\n{after}', encoding="utf-8")
    data = open_texts(tmp_path / "a.csv")
    assert len(data) == 49 and "words" in data.texts[0] and "stray" not in "".join(data.texts)
    assert len(set(data.texts[9:])) == 1 and data.classes == ("bad", "good")
    assert data.damage.count == 1 and data.damage.first[0].startswith("row 10: it is no CSV")


def test_fields_too_many_or_too_few_are_damage_and_lines_within_quotes_are_not(tmp_path: Path) -> None:
    rows = ["text,label", "a, comma,good", '"two', "", 'lines",bad', "", "short", '"a ""word""",good']
    (tmp_path / "a.csv").write_text("\r\n".join(rows), encoding="utf-8", newline="")
    data = open_texts(tmp_path / "a.csv")
    assert data.texts == ("two\r\n\r\nlines", 'a "word"') and data.classes == ("bad", "good")
    assert data.damage.first == (
        "row 1: its fields are 3, the first line names 2",
        "row 3: its fields are 1, the first line names 2",
    )


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("a.jsonl", b"", DataError, "no row can be used"),
        ("a.jsonl", b'{"picture": 1}\n', DataError, "row 1: no text among its columns 'picture'"),
        ("a.jsonl", b'{"text": "x"}\n', DataError, "neither a label nor an answer"),
        ("a.jsonl.gz", b"no gzip", FormatError, "cannot be read"),
        ("a.csv", b'"text,label\none,1\n', FormatError, "its first line: it is no CSV"),
        ("a.jsonl", b'{"text": "x", "label": -1}\n', DataError, "outside 0"),
        ("a.jsonl", b'{"text": "x", "label": 5000000}\n', DataError, "outside 0"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, name: str, content: bytes, error: type, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        open_texts(tmp_path / name)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 10_000)
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb") as stream:
        stream.write(b" " * 1_000_000)
    with pytest.raises(FormatError, match="unpacks to more"):
        open_texts(tmp_path / "bomb.jsonl.gz")


def test_texts_are_no_images_and_images_have_no_task(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"text": "x", "label": 0}])
    with pytest.raises(DataError, match="a set of images is needed, this is text"):
        open_data(path)
    with pytest.raises(ConfigError, match="no file of texts"):
        open_any("digits", "chat")


def test_views_batches_and_what_is_written(tmp_path: Path) -> None:
    labels = torch.tensor([1, 0, 1])
    data = TextSet(["a", "b\nb", "c\u202e"], ids=["x", "y", "z"], labels=labels, classes=("no", "yes"))
    part = data.subset([2, 0])
    assert (part.texts, part.ids, part.labels.tolist()) == (("c\u202e", "a"), ("z", "x"), [1, 1])
    assert data.take([1]) == ["b\nb"] and [len(x) for x, _ in data.batches(2)] == [2, 1]
    write_texts(tmp_path / "out.jsonl", data)
    back = open_texts(tmp_path / "out.jsonl")
    assert back.digest == data.digest and back.classes == data.classes
    assert data.digest != data.subset([0, 1]).digest
    relabelled = TextSet(data.texts, ids=data.ids, labels=torch.tensor([1, 1, 1]), classes=data.classes)
    assert relabelled.digest != data.digest


def test_ids_that_repeat_are_replaced(tmp_path: Path) -> None:
    rows = [{"id": 7, "text": "a", "label": 0}, {"id": 7, "text": "b", "label": 1}]
    assert open_texts(lines(tmp_path / "a.jsonl", rows)).ids == ("row-1", "row-2")
    rows[1]["id"] = "eight"
    assert open_texts(lines(tmp_path / "b.jsonl", rows)).ids == ("7", "eight")


def test_labels_of_parquet_have_the_names_that_datasets_writes(tmp_path: Path) -> None:
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())])
    named = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1, 0]}, schema=named), tmp_path / "a.parquet")
    assert open_texts(tmp_path / "a.parquet").classes == ("bad", "good")


def test_parquet_of_images_with_captions_is_no_set_of_texts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [b"x"], "text": ["caption"], "label": [0]}), tmp_path / "a.parquet")
    assert not reader.is_texts(tmp_path / "a.parquet")


def test_parquet_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"text": broken, "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match="cannot be read"):
        open_texts(tmp_path / "a.parquet")


def test_a_field_that_is_too_long_costs_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ROW", 50)
    (tmp_path / "a.csv").write_text("text,label\none,0\n" + "x" * 90 + ",1\ntwo,1\n", encoding="utf-8")
    data = open_texts(tmp_path / "a.csv")
    assert data.texts == ("one", "two") and data.damage.count == 1 and "no CSV" in data.damage.first[0]


def test_many_rows_are_no_way_round_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 1000)
    with gzip.open(tmp_path / "a.csv.gz", "wt", encoding="utf-8") as stream:
        stream.write("text,label\n" + "ten letters,0\n" * 200)
    with pytest.raises(FormatError, match="unpacks to more"):
        open_texts(tmp_path / "a.csv.gz")


def test_labels_beyond_any_integer_are_names(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 10**30}, {"text": "b", "label": 0}]
    assert open_texts(lines(tmp_path / "a.jsonl", rows)).classes == ("0", str(10**30))


def test_a_folder_with_train_jsonl_is_a_set_of_texts(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", [{"text": "a", "label": 0}])
    assert isinstance(open_any(tmp_path), TextSet)
