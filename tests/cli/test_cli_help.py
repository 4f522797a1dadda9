"""Help: quick, one sentence, three examples that parse; and what needs no torch."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ostiary.cli.main import COMMANDS, cli, run

ROOT = click.Context(cli, info_name="ostiary")


def every_command() -> Iterator[tuple[str, click.Command]]:
    yield "ostiary", cli
    for name in COMMANDS:
        command = cli.get_command(ROOT, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner, sub in command.commands.items():
                yield f"{name} {inner}", sub


PAGES = dict(every_command())


def examples(command: click.Command) -> list[list[str]]:
    """The words after `ostiary` of each example line."""
    lines = [line for line in (command.epilog or "").splitlines() if re.match(r"  (\w+=\S+ )*ostiary ", line)]
    calls = [part for line in lines for part in line.split("&&")]
    return [words[words.index("ostiary") + 1 :] for words in map(shlex.split, calls)]


def test_help_does_not_import_torch() -> None:
    code = "import sys\nfrom ostiary.cli.main import run\ntry: run(['--help'])\nexcept SystemExit: pass\n"
    code += "bad = {'torch', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules)\nsys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout and "scan" in done.stdout


@pytest.mark.parametrize("name", PAGES)
def test_help_opens_with_one_sentence_and_has_three_examples(name: str) -> None:
    command = PAGES[name]
    first = (command.help or "").split("\n\n")[0].replace("\n", " ")
    assert first.endswith(".") and ". " not in first
    assert len(examples(command)) >= 3


@pytest.mark.parametrize("name", PAGES)
def test_examples_parse(name: str) -> None:
    for words in examples(PAGES[name]):
        try:
            context, command, rest = ROOT, cli, words
            while isinstance(command, click.Group):
                found, inner, rest = command.resolve_command(context, rest)
                assert inner is not None and found is not None, words
                command, rest = inner, rest[1:] if rest[:1] == [found] else rest
            command.make_context(" ".join(words), list(rest))
        except click.exceptions.Exit as leave:
            assert leave.exit_code == 0  # noqa: PT017 - an example may ask for help


def test_every_command_takes_the_global_options() -> None:
    for name, command in PAGES.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        if name not in ("guard", "config", "bench", "key", "bom", "manifest"):
            assert {"-q", "-v", "--no-progress", "--color"} <= flags, name


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["scna", "m"], "no command 'scna'", "did you mean 'scan'?"),
        (["zzz"], "no command 'zzz'", "lists the commands"),
        (["scan", "m.safetensors", "--trustd", "x"], "no such option '--trustd'", "did you mean '--trusted'"),
        (["scan"], "missing argument", "`ostiary scan --help` shows its use"),
        (["scan", "m", "--seed", "Abc"], "'Abc' is not a valid integer", "--help"),
        (["scan", "m", "--limit", "0"], "not in the range", "--help"),
        (["poison", "digits", "-o", "x"], "missing option '--attack'", "--help"),
        (["explain", "OS999"], "unknown code 'OS999'", "known codes"),
        (["scan", "m", "-o", "x.txt"], "'x.txt' is no kind of report", ".html"),
        (["scan", "m", "-o", "a.html", "--report", "a.html"], "named for two outputs", "its own name"),
        (["scan", "m", "-o", "nowhere/a.html"], "no folder 'nowhere'", "make it first"),
        (["scan", "m", "--report", "there.html"], "'there.html' exists already", "another name"),
        (["screen", "x", "--export-suspects", "there.html"], "'there.html' exists already", "another name"),
        (["screen", "x", "--export-kept", "there.html"], "'there.html' exists already", "another name"),
        (["train", "x", "-o", "there.html"], "'there.html' exists already", "another name"),
        (["harden", "x", "--method", "abl", "-o", "there.html"], "'there.html' exists already", "another name"),
        (["harden", "x", "-o", "new.safetensors"], "missing option '--method'", "--help"),
        (["repair", "x", "--trusted", "x", "-o", "there.html"], "'there.html' exists already", "another name"),
        (["guard", "fit", "x", "--trusted", "x", "-o", "there.html"], "'there.html' exists already", "another name"),
        (["report", "nope", "-o", "there.html"], "'there.html' exists already", "another name"),
        (["report", "nope", "-o", "r.html"], "no record at 'nope'", "`ostiary runs`"),
    ],
)
def test_command_errors(
    args: list[str],
    error: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSTIARY_RUNS", "runs")
    Path("there.html").write_text("kept")
    assert run(args) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("error: ") and error in first
    assert second.startswith("hint: ") and hint in second
    assert out == "" and [path.name for path in tmp_path.iterdir()] == ["there.html"]
    assert Path("there.html").read_text() == "kept"


def test_no_arguments_show_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Usage: ostiary" in err and "error:" not in err


def settings(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, dict[str, object]]:
    assert run(["config", "show", "--json", *args]) == 0
    found: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_config_shows_the_origin_of_every_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSTIARY_RUNS", "elsewhere")
    monkeypatch.setenv("OSTIARY_SEED", "7")
    Path("pyproject.toml").write_text('[tool.ostiary]\nformat = "md"\n')
    assert settings(capsys)["format"] == {"value": "md", "origin": "pyproject.toml"}
    Path("ostiary.toml").write_text('seed = 5\nfail-on = "note"\n')
    found = settings(capsys, "--color", "never")
    assert found["seed"] == {"value": 7, "origin": "OSTIARY_SEED"}
    assert found["fail_on"] == {"value": "note", "origin": "ostiary.toml"}
    assert found["color"] == {"value": "never", "origin": "flag"}
    assert found["runs"] == {"value": "elsewhere", "origin": "OSTIARY_RUNS"}
    assert found["format"] == {"value": "text", "origin": "default"}
    assert run(["-q", "config", "show"]) == 0
    assert re.search(r"^quiet +true +flag", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("ostiary.toml", "sed = 3", "'ostiary.toml' has the unknown key 'sed'"),
        ("ostiary.toml", "seed = 1.5", "'seed' takes a whole number from 0 on, not 1.5"),
        ("ostiary.toml", "seed = true", "'seed' takes a whole number from 0 on, not True"),
        ("ostiary.toml", 'preset = "all"', "'preset' takes quick, standard, thorough"),
        ("ostiary.toml", "x = [", "cannot read 'ostiary.toml'"),
        ("pyproject.toml", "tool = 3", "is no table"),
        ("pyproject.toml", "[tool]\nostiary = 3", "is no table"),
    ],
)
def test_settings_files_are_checked(
    name: str,
    text: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSTIARY_RUNS", "runs")
    Path(name).write_text(text + "\n")
    assert run(["config", "show"]) == 2
    assert error in capsys.readouterr().err.splitlines()[0]


def test_explain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OSTIARY_RUNS", "runs")
    assert run(["explain", "os201"]) == 0
    assert "next step" in capsys.readouterr().out
