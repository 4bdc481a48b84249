"""The command line: ``limner VERB …``. Errors a user can mend are one line and exit code 2."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limner.cli.grammar import Answer


def main() -> None:
    """Entry point of the console script."""
    from limner.core.errors import LimnerError

    # OpenMP threads that spin for long while they wait take the core that another process needs. With two cores and two
    # busy neighbours a small net was seen to train 9 times faster with a short spin; alone it is 15 % slower. To be set
    # before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        code = _run(sys.argv[1:])
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


def _run(words: list[str]) -> int:
    answer = _answer(words)
    if answer is not None:
        sys.stdout.write(f"{answer.text}\n")
        if answer.failure is not None:
            raise answer.failure
    return 0


def _answer(words: list[str]) -> Answer | None:
    from limner import __version__
    from limner.cli import help
    from limner.cli.grammar import Answer, Form
    from limner.cli.verbs import VERBS
    from limner.core.errors import unknown

    first = " ".join(words[:1])
    group = first if any(name.startswith(f"{first} ") for name in VERBS) else ""
    name, rest = (" ".join(words[:2]), words[2:]) if group else (first, words[1:])
    if name in ("-V", "--version"):
        return Answer(None, __version__)
    if name == group or name.split()[-1] in ("-h", "--help"):
        return Answer(None, help.overview(VERBS, group), SystemExit(2) if name == group else None)
    if name not in VERBS:
        raise unknown("verb", name, VERBS)
    form = Form(VERBS[name], rest)
    if "-h" in rest or "--help" in rest:
        return Answer(None, help.text(form))
    names, settings, as_json = form.call(rest)
    answer = form.verb.function(*names, **settings)
    return answer._replace(text=json.dumps(answer.document, indent=1)) if answer and as_json else answer
