"""`ostiary federated`: a study from a file, its signed rounds checked, and what cannot be read."""

import json
from pathlib import Path

from cli_case import batch

STUDY = """data = "digits"
width = 4
rounds = 2
samples = 120
test = 100
[clients]
number = 5
epochs = 1
[server]
trusted = 10
[threat]
number = 1
first = 1
last = 2
"""


def test_a_study_is_run_signed_and_checked(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "typo.toml").write_text(STUDY.replace("rounds", "roundz"))
    run = ["federated", "run", "study.toml", "-o", "out", "--key", "server.key", "--report", "study.html"]
    made, done, again, checked, table, typo, missing, empty = batch(
        [
            ["key", "new", "--out", "server"],
            run,
            run[:5],
            ["federated", "check", "out", "--trust", "server.pub"],
            ["federated", "check", "out", "--trust", "server.pub", "--format", "json"],
            ["federated", "run", "typo.toml", "-o", "other"],
            ["federated", "run", "none.toml", "-o", "other"],
            ["federated", "check", ".", "--trust", "server.pub"],
        ],
        cwd=tmp_path,
    )
    assert made.code == 0
    assert done.code == 0 and "accuracy:" in done.out and "attack success at the end:" in done.out
    assert (tmp_path / "study.html").stat().st_size > 10_000
    assert again.code == 2 and "exists" in again.err, "nothing is overwritten"
    assert checked.code == 0 and "2 rounds, signed and without a gap; the last left global.safetensors" in checked.out
    assert [one["round"] for one in json.loads(table.out)] == [1, 2]
    assert typo.code == 2 and "unknown key 'roundz'" in typo.err and "did you mean 'rounds'?" in typo.err
    assert missing.code == 2 and "none.toml" in missing.err
    assert empty.code == 2 and "no rounds" in empty.err
    assert not (tmp_path / "other").exists()


def test_unsigned_rounds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    _, done, checked = batch(
        [
            ["key", "new", "--out", "server"],
            ["federated", "run", "study.toml", "-o", "out"],
            ["federated", "check", "out", "--trust", "server.pub"],
        ],
        cwd=tmp_path,
    )
    assert done.code == 0
    assert checked.code == 1 and "OS721" in checked.err
