"""Whether processes that read files ahead can be started from the script that asks for them."""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from limner.core.errors import LimnerError


def check_main_guard(workers: int) -> None:
    """Checks that a new process can import the main script without running it.

    Where processes are not forked (Windows, macOS, Python 3.14 on Linux), each of them imports the main script. If the
    training is called outside of ``if __name__ == "__main__":``, each would start it once more.

    Args:
        workers: number of processes.

    Raises:
        LimnerError: the script has no such guard around the call.
    """
    if not workers or multiprocessing.get_start_method() == "fork":
        return
    frame = _main_frame()
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if frame is None or file is None or not Path(file).is_file():
        return  # a notebook or a prompt, of which nothing is imported
    if not _is_guarded(Path(file).read_bytes(), frame.f_lineno):
        raise LimnerError(
            f"workers={workers} starts processes that import {Path(file).name} again: put the call under"
            " 'if __name__ == \"__main__\":', or use workers=0, which reads files ahead in threads"
        )


def _main_frame() -> FrameType | None:
    """The frame of the main script, if this call comes from there."""
    main = sys.modules.get("__main__")
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    return frame


def _is_guarded(source: bytes, line: int) -> bool:
    """Whether a line at the top of a script runs only if it is the main script."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return True  # it is not written in Python that can be judged here
    tests = [n for n in body if isinstance(n, ast.If) and "'__name__'" in ast.dump(n.test)]
    return any(n.lineno <= line <= (n.end_lineno or line) or "NotEq" in ast.dump(n.test) for n in tests)
