"""The entry point: a lazy command group, and one place where errors become messages and exit codes."""

import importlib
import os
import secrets
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from ostiary import __version__
from ostiary.cli.terminal import drop_stdout
from ostiary.core.errors import ConfigError, OstiaryError
from ostiary.core.text import one_line

COMMANDS = {
    "demo": "the main job on the digits: poison, train, screen, scan, repair, sign",
    "scan": "examine a model for a backdoor",
    "calibrate": "scan models that nobody attacked, as the reference of later scans",
    "screen": "rank the samples of a suspect data set",
    "repair": "write a repaired copy of a model and scan it again",
    "guard": "fit an input filter, or score inputs with it",
    "harden": "train on suspect data so that poison does not take",
    "poison": "write a poisoned copy of a data set, with its sealed truth",
    "train": "train a zoo model on a data set",
    "evaluate": "measure accuracy, attack success and robust accuracy",
    "bench": "measure defences against attacks in a grid",
    "federated": "try rules of federated learning against clients that attack",
    "key": "make the keys that sign models",
    "digest": "print what a model's bytes are",
    "sign": "sign a model's file or folder",
    "verify": "check that a model is what somebody trusted signed",
    "bom": "make, check and compare bills of materials of models",
    "attest": "state what a scan of a model found, or what it was built from",
    "admit": "decide by a policy whether a model may be used here",
    "manifest": "say what a data set holds, sample by sample",
    "trace": "say which sources, sets and models a sample is in",
    "impact": "name every model that learnt from a source",
    "inspect": "say what is in files of weights, without running them",
    "convert": "inspect a checkpoint and write its weights as safetensors",
    "report": "render records as one HTML or Markdown file",
    "methods": "list methods and architectures",
    "explain": "say what a code means and what to do",
    "config": "show settings and where each comes from",
    "doctor": "check this installation",
    "runs": "list the kept runs",
}

INTERRUPTED = 130
BUG = 70


class LazyGroup(click.Group):
    """Lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in their order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the one command that is called."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"ostiary.cli.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, with a suggestion for a mistyped one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "`ostiary --help` lists the commands"
            raise ConfigError(f"no command '{args[0]}'", hint=hint) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from COMMANDS, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


EPILOG = """\b
Examples:
  ostiary demo
  ostiary scan model.safetensors --trusted validation/ -o report.html
  ostiary screen train.parquet --export-suspects ids.csv

\b
Exit codes: 0 finished without findings, 1 findings, 2 unusable input, 3 not everything asked for was examined,
130 interrupted.
"""


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="ostiary %(version)s")
@click.option("-q", "--quiet", is_flag=True, default=None, help="No progress, no notes on stderr.")
@click.option("-v", "--verbose", is_flag=True, default=None, help="More on stderr.")
@click.option("--no-progress", is_flag=True, default=None, help="One line per stage instead of a bar.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default=None, help="When to colour text.")
@click.pass_context
def cli(ctx: click.Context, /, **flags: Any) -> None:
    """Find, prove and close backdoors in machine-learning models."""
    ctx.obj = {name: value for name, value in flags.items() if value is not None}


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run with the given arguments; gives the exit code."""
    try:
        code = cli.main(args, prog_name="ostiary", standalone_mode=False)
    except click.exceptions.Abort:
        return _say("interrupted", None, INTERRUPTED)
    except KeyboardInterrupt as error:
        return _say("interrupted", str(error) or None, INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        return _usage(error)
    except OstiaryError as error:
        if os.environ.get("OSTIARY_DEBUG") == "1":
            traceback.print_exc()
        return _say(str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; nothing is left to say to it.
        drop_stdout()
        return 0
    except OSError as error:
        # What is still buffered for a full disk would fail again at exit.
        drop_stdout()
        return _say(f"{error.filename or 'file system'}: {(error.strerror or str(error)).lower()}", None, 2)
    except Exception:  # noqa: BLE001 - whatever else happens is a bug of ours and gets a crash file
        return _bug()
    return code if isinstance(code, int) else 0


def _usage(error: click.UsageError) -> int:
    command = error.ctx.command_path if error.ctx else "ostiary"
    hint = f"`{command} --help` shows its use"
    if isinstance(error, click.NoSuchOption):
        message = f"no such option '{error.option_name}'"
        if error.possibilities:
            names = " or ".join(f"'{name}'" for name in error.possibilities)
            hint = f"did you mean {names}? {hint}"
    else:
        message = error.format_message().rstrip(".")
    return _say(message[:1].lower() + message[1:], hint, 2)


def _say(message: str, hint: str | None, code: int) -> int:
    click.echo(f"error: {one_line(message)}", err=True)
    if hint:
        click.echo(f"hint: {one_line(hint)}", err=True)
    return code


def _bug() -> int:
    if os.environ.get("OSTIARY_DEBUG") == "1":
        traceback.print_exc()
        return BUG
    bug = secrets.token_hex(4)
    path = Path(tempfile.gettempdir()) / f"ostiary-crash-{bug}.txt"
    hint = f"its details are in '{path}'; please report it"
    try:
        path.write_text(f"ostiary {__version__}\n{sys.argv}\n{traceback.format_exc()}", encoding="utf-8")
    except OSError:
        hint = "run the command again with OSTIARY_DEBUG=1 and report what it prints"
    return _say(f"this is a bug in ostiary (id {bug})", hint, BUG)
