"""Numbers, times and names in words, and text without private paths."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from limner.core.units import clock

# "d" and "g" are the two networks of a GAN
_ACRONYMS = frozenset(
    {
        "auroc",
        "bce",
        "cas",
        "ci",
        "d",
        "dci",
        "elbo",
        "fd",
        "fid",
        "g",
        "gan",
        "gpu",
        "iwae",
        "js",
        "kid",
        "kl",
        "lpips",
    }
    | {"mae", "mig", "ms", "mse", "ndb", "nll", "pca", "psnr", "rmse", "sap", "ssim"}
)

_END = r"\s/\\'\"`<>|,;:()\[\]{}"  # characters that end a name in an unquoted path
_QUOTED = re.compile(r"""(['"`])((?:file://)?(?:~?/|[A-Za-z]:[\\/]|\\\\)[^'"`\n]*)\1""")
_HOME = re.compile(
    rf"(?:\b[A-Za-z]:)?[/\\]+(?:home|Users)[/\\]+[^{_END}]+|(?<![\w.])/root(?=[/\s'\"]|$)", re.IGNORECASE
)
_POSIX = re.compile(rf"(?<![\w.…/\\<)~-])~?(?:/(?!/)[^{_END}]*[^\W\d][^{_END}]*(?:/[^{_END}]+)*/?)")
_WINDOWS = re.compile(rf"(?:~|\b[A-Za-z]:|\\)(?:[\\/]+[^{_END}]+)+[\\/]?")

_PRIVATE_WORDS = frozenset(
    {"user", "username", "login", "owner", "email", "host", "hostname", "node", "ip", "mac", "home", "cwd", "path"}
    | {"pythonpath", "executable", "argv", "env", "environ", "environment", "token", "secret", "password", "key"}
    | {"credentials"}
)


def number(value: float | int | None) -> str:
    """A number to four significant digits, or a dash for what is missing or not finite.

    >>> number(1234567), number(0.123456), number(17.2), number(-3), number(None)
    ('1,234,567', '0.1235', '17.2', '−3', '–')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if value == int(value) or abs(value) >= 10_000:
        text = f"{value:,.0f}" if abs(value) < 1e15 else f"{float(value):.4g}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", "−")


def duration(seconds: float | None) -> str:
    """A length of time in at most two units.

    >>> duration(0.25), duration(59.6), duration(252), duration(7384)
    ('0.25 s', '1 min 0 s', '4 min 12 s', '2 h 3 min')
    """
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    return clock(seconds)


def title(key: str, unit: str = "") -> str:
    """A key in words, without the unit at its end.

    >>> title("psnr_db", "dB"), title("iwae50_nats", "nats per image"), title("linear_probe")
    ('PSNR', 'IWAE 50', 'Linear probe')
    """
    words = [w for w in re.split(r"[_\s]+", key) if w]
    if len(words) > 1 and unit and words[-1].lower() == unit.split()[0].lower():
        words.pop()
    text = " ".join(_capitals(w) for w in words)
    return text[:1].upper() + text[1:]


def _capitals(word: str) -> str:
    """An acronym in capitals, with a space before its number; other words unchanged."""
    letters = word.rstrip("0123456789")
    return f"{letters.upper()} {word[len(letters) :]}".strip() if letters.lower() in _ACRONYMS else word


def is_private(key: str) -> bool:
    """Whether a key names something private about the user or the machine.

    >>> is_private("hostname"), is_private("device_name"), is_private("python_executable")
    (True, False, True)
    """
    return not _PRIVATE_WORDS.isdisjoint(re.split(r"[\W_]+", key.lower()))


def last_name(path: str) -> str:
    r"""The last name of an absolute path, or ~ where that is the name of a user.

    >>> last_name("/home/ann/my photos"), last_name("/home/ann"), last_name(r"C:\Users\Ann B\cats")
    ('…/my photos', '~', '…/cats')
    """
    path = path.removeprefix("file://")
    flavour = PureWindowsPath if re.match(r"[A-Za-z]:", path) or "\\" in path else PurePosixPath
    parts = [p for p in flavour(path).parts if p.strip("/\\")]
    at_home = [i for i, p in enumerate(parts) if p.lower() in ("home", "users")]
    if parts and (parts[-1] == "root" or (at_home and at_home[0] >= len(parts) - 2)):
        return "~"
    return f"…/{parts[-1]}" if parts else path


def is_absolute(text: str) -> bool:
    """Whether the whole text is one absolute path, or a path that begins with ~."""
    return bool(re.match(r"(?:file://)?(?:~?/[^/\s]|[A-Za-z]:[\\/]|\\\\)", text)) and "\n" not in text


def public(text: str) -> str:
    """`text` with every absolute path cut to its last name, so that a page shows no folders or user names.

    >>> public("skipped /home/ann/photos/cat.png: truncated")
    'skipped …/cat.png: truncated'
    >>> public("1,200 images/s, see https://example.org/a/b")
    '1,200 images/s, see https://example.org/a/b'
    """
    text = _QUOTED.sub(lambda m: m[1] + last_name(m[2]) + m[1], text)
    text = _HOME.sub("~", text.replace("file://", ""))
    text = _WINDOWS.sub(lambda m: last_name(m[0]), text)
    return _POSIX.sub(lambda m: last_name(m[0]), text)


def public_value(value: object) -> object:
    """A JSON value with `public` applied to every string, and without the keys for which `is_private` is true."""
    if isinstance(value, str):
        return last_name(value) if is_absolute(value) and " " in value and ": " not in value else public(value)
    if isinstance(value, dict):
        return {public(str(k)): public_value(v) for k, v in value.items() if not is_private(str(k))}
    if isinstance(value, list):
        return [public_value(v) for v in value]
    return value


def strings(value: object) -> Iterator[str]:
    """Every string among the values of a nested JSON or YAML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from strings(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from strings(v)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table of text, whose columns are as wide as their widest cell.

    >>> aligned([("", "a", "bc"), ("row", "10", "2")])
    ['     a   bc', 'row  10  2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
