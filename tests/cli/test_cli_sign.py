"""Keys, digests, signing and verifying as commands: good and bad input, exit codes, and what a kill leaves behind."""

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_case import batch, environment
from signed_case import flip, write_model

from ostiary.provenance.manifest import digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path


def test_the_whole_way(folder: Path) -> None:
    calls = [
        ["key", "new", "--out", "release"],
        ["key", "show", "release.pub"],
        ["digest", "model"],
        ["digest", "model", "--format", "json"],
        ["digest", "model/config.json", "--format", "json"],
        ["sign", "model", "--key", "release.key", "--model-version", "2", "-o", "model.sig"],
        ["verify", "model", "--signature", "model.sig", "--trust", "release.pub"],
        [
            "verify",
            "model",
            "--signature",
            "model.sig",
            "--trust",
            "release.pub",
            "--format",
            "json",
            "--report",
            "d.json",
        ],
    ]
    new, show, text, whole, one, sign, verify, record = batch(calls, cwd=folder)
    assert {result.code for result in (new, show, text, whole, one, sign, verify, record)} == {0}
    assert stat.S_IMODE((folder / "release.key").stat().st_mode) == 0o600
    key = show.out.split()[1]
    assert len(key) == 64 and key in new.out
    found = digest(folder / "model")
    assert found.root.hex() in text.out and all(file.path in text.out for file in found.files)
    assert whole.record["root"] == found.root.hex() and len(whole.record["files"]) == 4
    assert one.record["root"] != whole.record["root"]
    assert "wrote model.sig" in sign.out
    assert "unchanged" in verify.out and "version 2" in verify.out and "does not prove harmless" in verify.out
    assert record.record["decision"] == "accepted" and record.record["keys"] == [key]
    assert json.loads((folder / "d.json").read_text()) == record.record


def test_every_refusal_gives_exit_code_1_and_its_reasons(folder: Path) -> None:
    batch(
        [
            ["key", "new", "--out", "release"],
            ["key", "new", "--out", "other", "--kind", "ecdsa"],
            ["sign", "model", "--key", "release.key", "-o", "model.sig"],
        ],
        cwd=folder,
    )
    flip(folder / "model" / "config.json", 2)
    (folder / "model" / ".hidden").write_text("")
    calls = [
        ["verify", "model", "--signature", "model.sig", "--trust", "release.pub"],
        ["verify", "model", "--signature", "model.sig", "--trust", "other.pub", "--format", "json"],
        ["verify", "model", "--signature", "none.sig", "--trust", "release.pub"],
        ["verify", "model", "--signature", "model.sig", "--trust", "release.pub", "--pin", "00"],
        ["explain", "OS707"],
    ]
    altered, foreign, unsigned, pinned, explained = batch(calls, cwd=folder)
    assert altered.code == foreign.code == unsigned.code == pinned.code == 1
    assert "OS707 config.json" in altered.out and "OS709 .hidden" in altered.out and "refused" in altered.out
    assert foreign.record["reasons"][0]["code"] == "OS725"
    assert "OS701" in unsigned.out and "OS750" in pinned.out
    assert explained.code == 0 and "file altered" in explained.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["digest", "none"], "no such file"),
        (["key", "show", "model/config.json"], "no public key"),
        (["key", "new", "--out", "missing/release"], "no folder 'missing'"),
        (["sign", "model", "--key", "none.key", "-o", "x.sig"], "no such file"),
        (["sign", "model", "--key", "release.pub", "-o", "x.sig"], "release.pub"),
        (["sign", "none", "--key", "release.key", "-o", "x.sig"], "no such file"),
        (["sign", "model", "--key", "release.key", "-o", "model/x.sig"], "lies inside of"),
        (["sign", "model", "--key", "release.key", "-o", "release.pub"], "exists already"),
        (["sign", "model", "--key", "release.key", "--oms", "-o", "x.sig"], "ECDSA keys alone"),
        (["sign", "model", "--key", "release.key", "--oms", "--add-to", "x", "-o", "x.sig"], "--oms takes one key"),
        (["sign", "model", "--key", "release.key", "--add-to", "x", "--name", "y", "-o", "x.sig"], "--name stand"),
        (["verify", "none", "--signature", "m.sig", "--trust", "release.pub"], "no such file"),
        (["verify", "model", "--signature", "m.sig", "--trust", "none"], "no such file"),
        (["verify", "model", "--signature", "m.sig", "--trust", "model/config.json"], "neither a public key nor TOML"),
        (
            ["verify", "model", "--signature", "m.sig", "--trust", "release.pub", "--report", "x.html"],
            "no kind of report",
        ),
    ],
)
def test_what_cannot_be_read_gives_exit_code_2(folder: Path, args: list[str], words: str) -> None:
    setup = [["key", "new", "--out", "release"], ["sign", "model", "--key", "release.key", "-o", "m.sig"]]
    *_, found = batch([*setup, args], cwd=folder)
    assert found.code == 2 and words in found.errors[0]
    assert not (folder / "x.sig").exists()


def test_two_signers_one_after_the_other(folder: Path) -> None:
    (folder / "trust.toml").write_text(
        'id = "team"\nversion = 1\nexpires = 2099-01-01T00:00:00Z\nthreshold = {producer = 2}\n'
        '[[identity]]\nname = "one"\nkey = "one.pub"\nroles = ["producer"]\n'
        '[[identity]]\nname = "two"\nkey = "two.pub"\nroles = ["producer"]\n'
    )
    calls = [
        ["key", "new", "--out", "one"],
        ["key", "new", "--out", "two"],
        ["sign", "model", "--key", "one.key", "-o", "one.sig"],
        ["verify", "model", "--signature", "one.sig", "--trust", "trust.toml"],
        ["sign", "model", "--key", "two.key", "--add-to", "one.sig", "-o", "both.sig"],
        ["verify", "model", "--signature", "both.sig", "--trust", "trust.toml"],
    ]
    *_, alone, added, both = batch(calls, cwd=folder, env={"OSTIARY_STATE": str(folder / "state")})
    assert alone.code == 1 and "1 of 2 signatures needed" in alone.out
    assert added.code == 0 and both.code == 0 and "by one, two" in both.out


def test_a_bundle_of_oms(folder: Path) -> None:
    calls = [
        ["key", "new", "--out", "release", "--kind", "ecdsa"],
        ["sign", "model", "--key", "release.key", "--oms", "-o", "model.oms"],
        ["verify", "model", "--signature", "model.oms", "--trust", "release.pub"],
    ]
    *_, found = batch(calls, cwd=folder)
    assert found.code == 0 and "oms root" in found.out and "None" not in found.out


def test_an_encrypted_key_asks_on_a_terminal_or_takes_the_environment(folder: Path) -> None:
    extra = {"OSTIARY_PASSPHRASE": "open sesame"}
    made, signed = batch(
        [["key", "new", "--out", "k", "--passphrase"], ["sign", "model", "--key", "k.key", "-o", "a.sig"]],
        cwd=folder,
        env=extra,
    )
    assert made.code == signed.code == 0 and "ENCRYPTED" in (folder / "k.key").read_text()
    (silent,) = batch([["sign", "model", "--key", "k.key", "-o", "b.sig"]], cwd=folder)
    assert silent.code == 2 and "no terminal to ask" in silent.errors[0]
    wrong, right = (
        on_terminal(["sign", "model", "--key", "k.key", "-o", f"{word}.sig"], word, folder)
        for word in ("shut", "open sesame")
    )
    assert wrong == 2 and right == 0


def on_terminal(args: list[str], typed: str, cwd: Path) -> int:
    """The exit code of a command whose terminal somebody types on."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ostiary", *args], cwd=cwd, stdin=side, stdout=side, stderr=side, env=environment(cwd)
    )
    os.close(side)
    seen = b""
    try:
        while b"passphrase" not in seen:
            seen += os.read(main, 1024)
        time.sleep(0.2)
        os.write(main, typed.encode() + b"\n")
        while True:
            try:
                if not os.read(main, 1024):
                    break
            except OSError:
                break
        return process.wait(60)
    finally:
        os.close(main)
        process.kill()


def started(args: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ostiary", *args],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(cwd),
    )


def test_a_kill_at_any_moment_of_signing_leaves_no_signature_or_a_whole_one(folder: Path) -> None:
    (folder / "model" / "large.bin").write_bytes(os.urandom(2**20) * 64)
    batch([["key", "new", "--out", "release"]], cwd=folder)
    begun = time.monotonic()
    assert started(["sign", "model", "--key", "release.key", "-o", "whole.sig"], folder).wait(60) == 0
    seconds = time.monotonic() - begun
    left: list[Any] = []
    for share in (0.3, 0.6, 0.8, 0.9, 0.95, 1.0):
        process = started(["sign", "model", "--key", "release.key", "-o", "cut.sig"], folder)
        time.sleep(share * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        if (folder / "cut.sig").exists():
            (found,) = batch([["verify", "model", "--signature", "cut.sig", "--trust", "release.pub"]], cwd=folder)
            left.append(found.code)
            (folder / "cut.sig").unlink()
    assert set(left) <= {0}
