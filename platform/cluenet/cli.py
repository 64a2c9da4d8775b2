"""`cluenet`: the program; its verbs are in `verbs/`, one function each.

Exit codes: 0; 2 the input is wrong (`CluenetError`, or a command line that does not parse); 1 a bug of ours; 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from cluenet import interrupts
from cluenet.errors import CluenetError, StorageError
from cluenet.verbs import diagnose, grids, jobs, recipes, runs, serving, software
from cluenet.verbs.shared import say

GLOBAL_FLAGS = ("--debug", "--verbose")


class _CtrlCError(Exception):
    """Ctrl-C, on its way past typer, which would answer it itself."""


class _Messages(logging.Handler):
    """To what standard error is at that moment: above a live table, while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _CtrlCError from error


app = typer.Typer(
    cls=_Verbs, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Clue-aware video question answering on Ray: prepare, train, evaluate, ask. Recipes (YAML) say everything about a run.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        import cluenet

        print(f"cluenet {cluenet.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of Ray and of its workers.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    ctx.obj = verbose
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[_Messages()]
    )
    if verbose:
        logging.getLogger("cluenet").setLevel(logging.DEBUG)  # Ray Data and Ray Train then show all, too


for verb in (
    recipes.run, recipes.prepare, recipes.train, recipes.evaluate, recipes.plan, recipes.validate,
    grids.grid, jobs.submit,
    runs.report, runs.compare, runs.ask, runs.export, diagnose.diagnose,
    serving.serve,
    software.components, software.inspect, software.schema,
):  # fmt: skip
    app.command()(verb)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script, and the only place that ends the process."""
    sys.exit(call(list(sys.argv[1:] if arguments is None else arguments)))


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit code. --debug and --verbose may stand anywhere before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [flag for flag in GLOBAL_FLAGS if flag in arguments[:end]]
    rest = [word for word in arguments[:end] if word not in GLOBAL_FLAGS] + arguments[end:]
    try:
        with interrupts.remembered():
            app(args=[*flags, *rest], prog_name="cluenet")
    except SystemExit as stop:  # typer's: help, --version, a command line that does not parse
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except (KeyboardInterrupt, _CtrlCError):
        say("interrupted; run the same command again to resume")
        return 130
    except BrokenPipeError:  # `cluenet components | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error, debug="--debug" in flags)
    return 0


def _explain(error: Exception, *, debug: bool) -> int:
    """Prints what went wrong and returns the exit code."""
    if debug:
        traceback.print_exception(error)
    cause = getattr(error, "cause", None)  # of an error that came back from a Ray task, inside Ray's own
    known = cause if isinstance(cause, CluenetError) else error
    if isinstance(known, CluenetError):
        say(f"error: {known}")
        return known.exit_code
    if (full := _storage_error(error)) is not None:
        say(f"error: {full}")
        return full.exit_code
    where = "" if debug else " Run it again with --debug to see the traceback."
    say(
        f"internal error: {type(error).__name__}: {error}\nThis is a bug in cluenet or in a component of a plug-in.{where} "
        "Please report it to the maintainers, with the traceback, the command and the recipe."
    )
    return 1


def _storage_error(error: Exception) -> CluenetError | None:
    """A full disk met where nobody expected it."""
    from cluenet.folders import storage_errors

    path = getattr(error, "filename", None) or "."
    try:
        with storage_errors(path):
            raise error
    except StorageError as storage:
        return storage
    except Exception:
        return None
