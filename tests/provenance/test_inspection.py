"""What is no weights and no trick is told apart from old pickles, which have no mark."""

import pickle
from pathlib import Path

from ostiary.provenance.pickles import inspect_bytes


def test_texts_are_not_taken_for_old_pickles() -> None:
    """Letters are opcodes: a `hello` begins with BINGET. What is whole and names something is one in any file."""
    root = Path(__file__).parents[2]
    pages = [
        path for kind in ("md", "py", "toml", "json") for path in root.glob(f"*/**/*.{kind}") if path.stat().st_size
    ]
    words = {
        f"{word}.txt": word.encode()
        for word in ("hello world", "t.py\n", "0.1\n", "cat\ndog\n", "e.g. this", ".", "l.")
    }
    files = {str(path): path.read_bytes() for path in pages[:300]} | words | {"README": b"hello"}
    assert len(files) > 200
    for name, data in files.items():
        found = inspect_bytes(memoryview(data), name)
        assert found.format == "unknown" and [reason.code for reason in found.reasons] == ["OS101"], name
    assert inspect_bytes(memoryview(pickle.dumps(print, 0)), "x.json").format == "pickle"
    assert inspect_bytes(memoryview(b"hello"), "x.pkl").format == "pickle"
