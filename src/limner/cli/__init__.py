"""The command line: ``limner VERB …``. An error that the user can correct is one line, with exit code 2."""

from __future__ import annotations

import json
import os
import re
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limner.cli.grammar import Result


def main() -> None:
    """Entry point of the console script."""
    from limner.core.errors import LimnerError

    _prepare_output()
    # Waiting OpenMP threads that spin for long occupy the core that another process needs. On two cores with two busy
    # processes a small net trained 9 times faster with a short spin; alone it is 15 % slower. This has to be set before
    # torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = _run(sys.argv[1:])
    except LimnerError as error:
        code = _print_error(str(error))
    except KeyboardInterrupt as error:  # includes limner.core.train.Interrupted, after a checkpoint was saved
        signum = getattr(error, "signum", 2)
        run = getattr(error, "run", None)
        if run is not None:
            from limner.core.run import relative

            _print_error(f"saved; continue with: limner resume {relative(run.path)}")
        code = 128 + signum
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        if error.errno is None or os.environ.get("LIMNER_DEBUG"):
            raise
        what = f" {Path(str(error.filename)).name}" if error.filename else ""
        code = _print_error(f"{error.strerror}{what}; files saved before are unchanged")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        code = _print_error("not enough memory; lower train.batch or data.size")
    sys.exit(code)


def _prepare_output() -> None:
    """Makes warnings of limner one line, and lets no letter end a verb that a pipe lacks, as cp1252 lacks →."""
    import warnings

    from limner.core.errors import LimnerWarning

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show = warnings.showwarning

    def show_one_line(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, LimnerWarning):
            _print_error(str(message))
        else:
            show(message, category, *place)

    warnings.showwarning = show_one_line  # type: ignore[assignment]


def _print_error(message: str) -> int:
    sys.stderr.write(f"limner: {' '.join(message.split())}\n")
    return 2


def _run(arguments: list[str]) -> int:
    result = _execute(arguments)
    if result is not None:
        sys.stdout.write(f"{result.text}\n")
        if result.failure is not None:
            raise result.failure
    return 0


def _execute(arguments: list[str]) -> Result | None:
    from limner import __version__
    from limner.cli import help
    from limner.cli.grammar import Parser, Result
    from limner.cli.verbs import VERBS
    from limner.core.errors import unknown

    first_word = " ".join(arguments[:1])
    group = first_word if any(name.startswith(f"{first_word} ") for name in VERBS) else ""
    name, remaining = (" ".join(arguments[:2]), arguments[2:]) if group else (first_word, arguments[1:])
    if name in ("-V", "--version"):
        return Result(None, __version__)
    if name == group or name.split()[-1] in ("-h", "--help"):
        return Result(None, help.overview(VERBS, group), SystemExit(2) if name == group else None)
    if name not in VERBS:
        raise unknown("verb", name, VERBS)
    parser = Parser(VERBS[name], remaining)
    if "-h" in remaining or "--help" in remaining:
        return Result(None, help.text(parser))
    names, settings, as_json = parser.parse(remaining)
    result = parser.verb.function(*names, **settings)
    return result._replace(text=json.dumps(result.document, indent=1)) if result and as_json else result
