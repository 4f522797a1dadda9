"""The hooks of pre-commit and the GitHub action, as their own programs run them: pre-commit itself, and bash."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import yaml
from cli_case import environment, program
from gate_case import run_of
from safetensors.torch import save_file
from signed_case import Signed, flip, make_signed

from ostiary.cli.main import cli

ROOT = Path(__file__).parents[2]
Hooked = tuple[Path, dict[str, str], str, Path]
Done = subprocess.CompletedProcess[str]
HOSTILE = b"cposix\nsystem\n(S'true'\ntR."


def with_ostiary(folder: Path) -> dict[str, str]:
    """The environment of a user: `ostiary` on the path is this one, and git knows nobody."""
    known = environment(folder / "runs", {"PRE_COMMIT_HOME": str(folder / "pre-commit"), "HOME": str(folder)})
    names = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "somebody")
    mails = dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "somebody@example.org")
    # Nobody may be asked: what would reach for the network fails.
    offline = {"GIT_ALLOW_PROTOCOL": "file", "PIP_NO_INDEX": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return {
        **known,
        **names,
        **mails,
        **offline,
        "PATH": program(folder / "programs"),
        "OSTIARY_STATE": str(folder / "state"),
    }


def git(*args: str, cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(["git", *args], cwd=cwd, env=env, check=True, capture_output=True, text=True)  # noqa: S607
    return done.stdout.strip()


@pytest.fixture
def hooked(tmp_path: Path) -> Hooked:
    """A repository of a user, the environment, and the repository of the hooks with its commit."""
    env = with_ostiary(tmp_path)
    hooks, user = tmp_path / "hooks", tmp_path / "user"
    for folder in (hooks, user):
        folder.mkdir()
        git("init", "-q", cwd=folder, env=env)
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    git("add", ".", cwd=hooks, env=env)
    git("commit", "-qm", "hooks", cwd=hooks, env=env)
    return user, env, git("rev-parse", "HEAD", cwd=hooks, env=env), hooks


def committed(
    hooked: tuple[Path, dict[str, str], str, Path], *hooks: dict[str, Any]
) -> "subprocess.CompletedProcess[str]":
    """What pre-commit makes of all that is staged, with hooks that use the ostiary that is installed."""
    user, env, commit, repository = hooked
    chosen = [{"language": "system", **hook} for hook in hooks]
    config = {"repos": [{"repo": str(repository), "rev": commit, "hooks": chosen}]}
    (user / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git("add", ".", cwd=user, env=env)
    command = [sys.executable, "-m", "pre_commit", "run", "--color", "never", "--verbose"]
    return subprocess.run(command, cwd=user, env=env, check=False, capture_output=True, text=True)


def test_pre_commit_refuses_a_pickle_that_runs_something(hooked: Hooked) -> None:
    user = hooked[0]
    save_file({"w": torch.zeros(3)}, user / "model.safetensors")
    (user / "notes.txt").write_text("to whom it may concern")
    (user / "link.pt").symlink_to("nowhere")
    good = committed(hooked, {"id": "ostiary-inspect"})
    assert good.returncode == 0 and "allowed    model.safetensors" in good.stdout, good.stdout
    assert "notes.txt" not in good.stdout and "link.pt" not in good.stdout
    (user / "deep").mkdir()
    (user / "deep" / "Bad.PT").write_bytes(HOSTILE)
    bad = committed(hooked, {"id": "ostiary-inspect"})
    assert bad.returncode == 1 and "OS112 deep/Bad.PT" in bad.stdout, bad.stdout
    assert "Failed" in bad.stdout and "exit code: 1" in bad.stdout


def test_a_file_whose_name_is_an_option_is_a_file(hooked: Hooked) -> None:
    (hooked[0] / "-h.pt").write_bytes(HOSTILE)
    found = committed(hooked, {"id": "ostiary-inspect"})
    assert found.returncode == 1 and "OS112 -h.pt" in found.stdout, found.stdout


def test_pre_commit_verifies_a_model(hooked: Hooked) -> None:
    user = hooked[0]
    signed = make_signed(user)
    for key in user.glob("*.key"):
        key.unlink()
    hook = {"id": "ostiary-verify", "args": ["model", "--signature", "model.sig", "--trust", "producer.pub"]}
    good = committed(hooked, hook)
    assert good.returncode == 0 and "unchanged  model" in good.stdout, good.stdout
    flip(signed.folder / "config.json", 2)
    bad = committed(hooked, hook)
    assert bad.returncode == 1 and "OS707 config.json" in bad.stdout


def test_the_hooks_are_valid_and_name_every_kind_of_weights() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml")]
    subprocess.run(command, check=True)
    (inspect,) = (one for one in hooks() if one["id"] == "ostiary-inspect")
    for name in ("a.pt", "b/c.safetensors", "X.PKL", "pytorch_model.bin"):
        assert re.search(inspect["files"], name)
    for name in ("pt", "a.pt.txt", "safetensors.py", "README.md"):
        assert not re.search(inspect["files"], name)


def hooks() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    return found


ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STUB = '#!/bin/sh\nprintf "%s\\n" "$@" > "$ASKED"\n'


def act(signed: Signed, inputs: Mapping[str, str]) -> list[Done]:
    """The steps of the action with these inputs, until one fails, as a runner takes them; pip is written down only."""
    folder = signed.folder.parent
    given = {**{key: one.get("default", "") for key, one in ACTION["inputs"].items()}, **inputs}
    needed = {key for key, one in ACTION["inputs"].items() if one.get("required")}
    assert needed <= set(inputs)
    env = with_ostiary(folder)
    stub = folder / "programs" / "python"
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    done = []
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"], "inputs are no part of the script"
        own = {key: filled(value, given) for key, value in step["env"].items()} | {"ASKED": str(folder / "asked")}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        result = subprocess.run(command, cwd=folder, env={**env, **own}, check=False, capture_output=True, text=True)
        done.append(result)
        if done[-1].returncode:
            break
    return done


def filled(value: str, given: Mapping[str, str]) -> str:
    """An expression of the action's `env` with what a runner puts there."""
    known = {"github.action_path": "/runner/ostiary", **{f"inputs.{key}": one for key, one in given.items()}}
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known[found.group(1)], value)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return make_signed(tmp_path)


VERIFY = {"command": "verify", "path": "model", "args": "--signature\nmodel.sig\n\n--trust\nproducer.pub\n"}


def test_the_action_is_composite_and_says_what_it_takes() -> None:
    assert ACTION["runs"]["using"] == "composite" and {"command", "path", "args", "sarif-file"} == set(ACTION["inputs"])
    assert all(step["shell"] == "bash" for step in ACTION["runs"]["steps"])


def test_the_action_verifies_and_writes_sarif(signed: Signed) -> None:
    folder = signed.folder.parent
    install, good = act(signed, {**VERIFY, "sarif-file": "a.sarif"})
    assert install.returncode == good.returncode == 0, good.stderr
    assert (folder / "asked").read_text().split() == ["-m", "pip", "install", "--quiet", "/runner/ostiary"]
    assert "unchanged  model" in good.stdout and run_of((folder / "a.sarif").read_text())["results"] == []
    flip(signed.folder / "config.json", 2)
    bad = act(signed, {**VERIFY, "sarif-file": "b.sarif"})[-1]
    assert bad.returncode == 1
    assert run_of((folder / "b.sarif").read_text())["results"][0]["ruleId"] == "OS707"


def test_inputs_of_the_action_are_never_run(signed: Signed) -> None:
    folder = signed.folder.parent
    evil = "$(touch ran)`touch ran`;touch ran #"
    for inputs in (
        {"command": "inspect", "path": evil},
        {"command": "inspect", "path": "model", "args": f"--report\n{evil}.sarif"},
        {"command": evil, "path": "model"},
        {"command": "inspect", "path": "model", "sarif-file": f"{evil}.sarif"},
    ):
        act(signed, inputs)
    assert not (folder / "ran").exists()


def test_other_commands_and_options_as_paths_fail(signed: Signed) -> None:
    other = act(signed, {"command": "key", "path": "new"})[-1]
    assert other.returncode == 2 and "no command 'key'" in other.stderr
    assert act(signed, {"command": "inspect", "path": "--help"})[-1].returncode == 2
    model = act(signed, {"command": "inspect", "path": "model", "args": "--format\njson"})[-1]
    assert model.returncode == 0 and json.loads(model.stdout)["decision"] == "allowed"


PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def test_the_page_names_hooks_inputs_and_options_that_exist() -> None:
    hooked, jobs = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    assert [one["id"] for one in hooked["repos"][0]["hooks"]] == [one["id"] for one in hooks()]
    (step,) = (one for one in jobs["jobs"]["model"]["steps"] if "ostiary@" in one["uses"])
    assert set(step["with"]) == set(ACTION["inputs"])
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    calls = [shlex.split(line)[1:] for line in lines if line.startswith("ostiary ")]
    assert len(calls) == 7
    for name, *words in calls:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, words)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", PAGE))
def test_links_of_the_page_lead_somewhere(target: str) -> None:
    file, _, heading = target.partition("#")
    text = (ROOT / "docs" / file).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert not heading or heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
