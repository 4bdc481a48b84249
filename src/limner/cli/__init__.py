"""The command line: ``limner VERB …``. Errors a user can mend are one line and exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Entry point of the console script."""
    from limner.core.errors import LimnerError

    # OpenMP threads that spin for long while they wait take the core that another process needs. With two cores and two
    # busy neighbours a small net was seen to train 9 times faster with a short spin; alone it is 15 % slower. To be set
    # before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = _run()
    except LimnerError as error:
        code = _say(str(error))
    except KeyboardInterrupt as error:  # also limner.core.train.Interrupted, after everything was saved
        signum = getattr(error, "signum", 2)
        run = getattr(error, "run", None)
        if run is not None:
            from limner.core.run import relative

            _say(f"saved; go on with: limner resume {relative(run.path)}")
        code = 128 + signum
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        if error.errno is None or os.environ.get("LIMNER_DEBUG"):
            raise
        what = f" {Path(str(error.filename)).name}" if error.filename else ""
        code = _say(f"{error.strerror}{what}; what was saved before is untouched")
    except MemoryError:
        code = _say("memory is short; lower train.batch or data.size")
    sys.exit(code)


def _say(message: str) -> int:
    sys.stderr.write(f"limner: {' '.join(message.split())}\n")
    return 2


def _run() -> int:
    import typer.main

    from limner.cli.app import app

    command = typer.main.get_command(app)
    try:
        # not command.main(): it would turn an interrupt into an exit code of its own
        with command.make_context("limner", sys.argv[1:]) as context:
            command.invoke(context)
    except Exception as error:
        # By their attributes, since typer may carry its own copy of click: first its Exit, then its complaints
        # (a missing argument, an unknown verb).
        if hasattr(error, "exit_code") and not hasattr(error, "format_message"):
            return int(error.exit_code)
        if not hasattr(error, "format_message"):
            raise
        hint = "; see 'limner --help'"
        return _say(error.format_message().rstrip(".") + hint)
    return 0
