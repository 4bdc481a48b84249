"""Small faults in Python source: their possible positions, and the text with a fault.

A fault changes one line and one thing on it: a comparison, a sign, a constant, an argument, a call that is left out.
None is planted where it could change no result, or where only a reader would see it: in docstrings, annotations,
messages of exceptions, f-strings, `__repr__`, `TYPE_CHECKING` blocks, protocols, arguments and calls that cost or save
time only, and in what another machine would run (CUDA, Windows). A fault whose syntax tree is that of the original
is none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Edit = tuple[int, int, int, str]
"""Line from 1, its first byte, the byte after its last, and what stands there instead."""

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),  # not the other way: `|` joins dictionaries and types
    ast.BitXor: ("^", "&"),
}
SIBLINGS = {
    "min": "max",
    "amin": "amax",
    "minimum": "maximum",
    "argmin": "argmax",
    "floor": "ceil",
    "any": "all",
    "sin": "cos",
    "sum": "mean",
    "zeros": "ones",
    "zeros_like": "ones_like",
    "randn": "rand",
}
SIBLINGS |= {there: here for here, there in SIBLINGS.items()}
LEFT_OUT = {"abs", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "detach", "exp", "expanduser", "flip", "floor"}
LEFT_OUT |= {"log", "lower", "relu", "round", "sigmoid", "softplus", "sorted", "sqrt", "square", "strip", "tanh"}
SYMMETRIC = {"add", "allclose", "equal", "gcd", "hypot", "isclose", "l1_loss", "max", "maximum", "min", "minimum"}
SYMMETRIC |= {"mse_loss", "mul"}
TYPED = {"cast", "getattr", "hasattr", "isinstance", "issubclass", "setattr"}  # swapped, they cannot even be called

COSTS = {"buffering", "capturable", "chunksize", "daemon", "device", "encoding", "flush", "foreach", "fused", "indent"}
COSTS |= {"inplace", "max_workers", "maxsize", "memory_format", "mp_context", "multiprocessing_context", "non_blocking"}
COSTS |= {"num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "preserve_rng_state", "repr"}
COSTS |= {"stacklevel", "timeout", "use_reentrant"}
"""Keywords that change what a call costs, where it runs or how it looks, and not what it gives."""

QUIET = {"close", "collect", "debug", "empty_cache", "flush", "fsync", "info", "print", "set_num_threads"}
QUIET |= {"synchronize", "warn", "warning"}
"""Calls whose absence no result shows."""

ELSEWHERE = re.compile(r"cuda|\bmps\b|\bxpu\b|win32|darwin|os\.name")
FILES = re.compile(r"path|folder|root|parent|home|cache", re.IGNORECASE)
TINY, LONG = 1e-4, 1 << 12  # a tolerance; the size of a buffer: nearby ones do as well


@dataclass(frozen=True, order=True)
class Fault:
    """One change of one line.

    Args:
        line: its number, from 1.
        start: its first byte that changes, from 0, as `ast` counts.
        end: the byte after the last.
        new: what stands there instead.
        operator: a key of `OPERATORS`.
    """

    line: int
    start: int
    end: int
    new: str
    operator: str

    def plant(self, text: str) -> str:
        """The source with the fault in it."""
        lines = text.encode().split(b"\n")
        line = lines[self.line - 1]
        lines[self.line - 1] = line[: self.start] + self.new.encode() + line[self.end :]
        return b"\n".join(lines).decode()

    def lines(self, text: str) -> tuple[str, str]:
        """The line before and after, without its indentation."""
        before, after = (t.encode().split(b"\n")[self.line - 1].decode().strip() for t in (text, self.plant(text)))
        return before, after


class Code:
    """A source file as text and as a tree, with the edits that fit on one line."""

    def __init__(self, text: str) -> None:
        self.text, self.tree, self._lines = text, ast.parse(text), text.encode().split(b"\n")
        quiet = (n for n in ast.walk(self.tree) if "no_grad" in self._opening(n))
        self.without_gradients = {id(n) for q in quiet for n in ast.walk(q)}

    def _opening(self, node: ast.AST) -> str:
        """What a `with` enters, or what decorates a function."""
        if isinstance(node, ast.With):
            return " ".join(ast.unparse(i.context_expr) for i in node.items)
        if isinstance(node, ast.FunctionDef):
            return " ".join(ast.unparse(d) for d in node.decorator_list)
        return ""

    def of(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node that ends on the line where it begins; else nothing."""
        if node.lineno != node.end_lineno:
            return ""
        return self._lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode()

    def instead(self, node: ast.expr | ast.stmt, new: str) -> Iterator[Edit]:
        """Replaces a node."""
        if self.of(node):
            yield node.lineno, node.col_offset, node.end_col_offset or 0, new

    def between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[Edit]:
        """Replaces what stands between two nodes, such as an operator."""
        if left.end_lineno == right.lineno:
            line, start = self._lines[right.lineno - 1], left.end_col_offset or 0
            place = line[start : right.col_offset].find(old.encode())
            if place >= 0:
                yield right.lineno, start + place, start + place + len(old), new

    def without(self, call: ast.Call, keyword: ast.keyword) -> Iterator[Edit]:
        """Drops a keyword argument and the comma beside it."""
        if not self.of(keyword.value) or keyword.lineno != keyword.value.lineno:
            return
        arguments: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
        earlier = [a for a in arguments if _start(a) < _start(keyword)]
        start, end = keyword.col_offset, keyword.end_col_offset or 0
        last = max(earlier, key=_start, default=None)
        if last is not None and last.end_lineno == keyword.lineno:
            start = last.end_col_offset or 0
        else:
            comma = re.match(rb",\s*", self._lines[keyword.lineno - 1][end:])
            end += comma.end() if comma else 0
        yield keyword.lineno, start, end, ""


def _start(node: ast.expr | ast.keyword) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _name(call: ast.AST) -> str:
    """The last part of the name that is called: `sum` in `x.square().sum(1)`."""
    called = call.func if isinstance(call, ast.Call) else call
    return getattr(called, "attr", getattr(called, "id", ""))


# ---- where a fault may stand ----------------------------------------------------------------------------------------


def _bare(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without docstrings."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]


def _hidden(node: ast.AST, code: Code) -> bool:
    """Whether a fault inside would change no result of a program on this machine."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef(name="__repr__" | "__str__" | "__dir__"):
            return True
        case ast.FunctionDef(decorator_list=marks):
            return any(_name(m) == "overload" for m in marks)
        case ast.ClassDef(bases=bases):
            return any(_name(b) == "Protocol" for b in bases)
        case ast.Call():
            return _name(node).endswith(("Error", "Warning")) or _name(node) in QUIET
        case ast.keyword(arg=name):
            return name in COSTS
        case ast.IfExp(body=ast.JoinedStr()) | ast.IfExp(orelse=ast.JoinedStr()):
            return True
        case ast.If(test=test) | ast.IfExp(test=test):
            return _name(test) == "TYPE_CHECKING" or bool(ELSEWHERE.search(ast.unparse(test)))
        case ast.stmt():
            return bool(ELSEWHERE.search(code.of(node)))
    return False


def _below(node: ast.AST) -> list[ast.AST]:
    """The parts of a node that run."""
    match node:
        case ast.Module(body=body) | ast.ClassDef(body=body):
            return [*_bare(body)]
        case ast.FunctionDef(args=args, body=body):
            return [*args.defaults, *(d for d in args.kw_defaults if d), *_bare(body)]
        case ast.AnnAssign(value=value):
            return [value] if value else []
    return [*ast.iter_child_nodes(node)]


def _open(node: ast.AST, code: Code) -> Iterator[ast.AST]:
    """All nodes in which a fault could show."""
    if not _hidden(node, code):
        yield node
        for part in _below(node):
            yield from _open(part, code)


# ---- what may be wrong ----------------------------------------------------------------------------------------------


def comparison(node: ast.AST, code: Code) -> Iterator[Edit]:
    """`<` for `<=`, `==` for `!=`, `in` for `not in`."""
    if isinstance(node, ast.Compare):
        for left, kind, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            yield from code.between(left, right, *COMPARISONS[type(kind)])


def arithmetic(node: ast.AST, code: Code) -> Iterator[Edit]:
    """`+` for `-`, `*` for `/`; not between texts, lists or paths."""
    match node:
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in ARITHMETIC:
            joined = any(isinstance(s, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp) for s in (left, right))
            texts = any(isinstance(s, ast.Constant) and isinstance(s.value, str | bytes) for s in (left, right))
            path = isinstance(kind, ast.Div) and FILES.search(ast.unparse(node))
            if not (joined or texts or path):
                yield from code.between(left, right, *ARITHMETIC[type(kind)])
        case ast.AugAssign(target=left, op=kind, value=right) if type(kind) in ARITHMETIC:
            old, new = ARITHMETIC[type(kind)]
            yield from code.between(left, right, f"{old}=", f"{new}=")


def logic(node: ast.AST, code: Code) -> Iterator[Edit]:
    """`and` for `or`."""
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            yield from code.between(left, right, old, new)


def negation(node: ast.AST, code: Code) -> Iterator[Edit]:
    """A `not` or a minus left out."""
    match node:
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield from code.instead(node, f"({code.of(operand)})")


def constant(node: ast.AST, code: Code) -> Iterator[Edit]:
    """True for False, n + 1 for n, 2 x for x."""
    match node:
        case ast.Constant(value=bool(value)):
            yield from code.instead(node, str(not value))
        case ast.Constant(value=int(value)) if value < LONG:
            yield from code.instead(node, str(value + 1))
        case ast.Constant(value=float(value)) if value == 0 or value > TINY:
            yield from code.instead(node, repr(2 * value or 1.0))


def condition(node: ast.AST, code: Code) -> Iterator[Edit]:
    """An `if` that is always or never taken."""
    if isinstance(node, ast.If | ast.IfExp):
        # `x if weight else x.detach()` saves the gradient of what is multiplied by nothing
        saves = isinstance(node, ast.IfExp) and ast.unparse(node.orelse) == f"{ast.unparse(node.body)}.detach()"
        yield from () if saves else code.instead(node.test, "True")
        yield from code.instead(node.test, "False")


def sibling(node: ast.AST, code: Code) -> Iterator[Edit]:
    """`min` for `max`, `sum` for `mean`."""
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in SIBLINGS and name != "sum":
            yield from code.instead(node.func, SIBLINGS[name])
        case ast.Call(func=ast.Attribute(attr=name, end_lineno=int(line), end_col_offset=int(end))) if name in SIBLINGS:
            yield line, end - len(name), end, SIBLINGS[name]


def order(node: ast.AST, code: Code) -> Iterator[Edit]:
    """The first two arguments the wrong way round."""
    if not isinstance(node, ast.Call) or len(node.args) < 2 or _name(node) in SYMMETRIC | TYPED:
        return
    a, b = (code.of(argument) for argument in node.args[:2])
    first, second = node.args[:2]
    stars = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
    if a and b and a != b and not stars and first.lineno == second.lineno:
        for _, start, end, _ in code.between(first, second, ", ", ""):
            if (start, end) == (first.end_col_offset, second.col_offset):
                yield first.lineno, first.col_offset, second.end_col_offset or 0, f"{b}, {a}"


def keyword(node: ast.AST, code: Code) -> Iterator[Edit]:
    """A keyword argument left out."""
    if isinstance(node, ast.Call) and _name(node) not in ("zip", "field", "partial"):
        for argument in node.keywords:
            if argument.arg and argument.arg not in COSTS:
                yield from code.without(node, argument)


def call(node: ast.AST, code: Code) -> Iterator[Edit]:
    """`x` for `x.detach()`, `abs(x)` or `x.clamp(0, 1)`."""
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in LEFT_OUT and _name(value) not in _MODULES:
            needless = name == "detach" and id(node) in code.without_gradients
            if code.of(value) and not needless:
                yield from code.instead(node, code.of(value) if isinstance(value, _TIGHT) else f"({code.of(value)})")
        case ast.Call(func=function, args=[argument], keywords=[]) if _name(function) in LEFT_OUT:
            if not isinstance(argument, ast.GeneratorExp):
                yield from code.instead(node, f"({code.of(argument)})")


_MODULES = ("F", "functional", "math", "np", "torch")
_TIGHT = (ast.Attribute, ast.Call, ast.Name, ast.Subscript)  # need no brackets around them


def statement(node: ast.AST, code: Code) -> Iterator[Edit]:
    """A call, `+=` or assignment to a part left out."""
    match node:
        case ast.Expr(value=ast.Call(func=function)) if _name(function) not in QUIET | {"__init__"}:
            yield from code.instead(node, "pass")
        case ast.AugAssign() | ast.Assign(targets=[ast.Subscript()]):
            yield from code.instead(node, "pass")


def value(node: ast.AST, code: Code) -> Iterator[Edit]:
    """A returned number with the wrong sign, a returned truth denied."""
    if not isinstance(node, ast.FunctionDef) or not isinstance(node.returns, ast.Name):
        return
    turned = {"Tensor": "-", "float": "-", "int": "-", "bool": "not "}.get(node.returns.id)
    inner = {id(n) for f in ast.walk(node) if f is not node and isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for part in ast.walk(node):
        if turned and isinstance(part, ast.Return) and part.value and id(part) not in inner:
            yield from code.instead(part.value, f"{turned}({code.of(part.value)})")


def loop(node: ast.AST, code: Code) -> Iterator[Edit]:
    """`break` for `continue`."""
    if isinstance(node, ast.Break | ast.Continue):
        yield from code.instead(node, "continue" if isinstance(node, ast.Break) else "break")


OPERATORS: dict[str, Callable[[ast.AST, Code], Iterator[Edit]]] = {
    "comparison": comparison,
    "arithmetic": arithmetic,
    "logic": logic,
    "negation": negation,
    "constant": constant,
    "condition": condition,
    "sibling": sibling,
    "order": order,
    "keyword": keyword,
    "call": call,
    "statement": statement,
    "value": value,
    "loop": loop,
}


def faults(text: str) -> list[Fault]:
    """All faults that a source may be given, in the order of its lines; whether one `counts` is asked apart."""
    code = Code(text)
    made = (
        (name, edit) for n in _open(code.tree, code) for name, edits in OPERATORS.items() for edit in edits(n, code)
    )
    return sorted({Fault(*edit, name) for name, edit in made})


def counts(fault: Fault, text: str) -> bool:
    """Whether the source with the fault in it compiles and is another program."""
    try:
        tree = ast.parse(fault.plant(text))
        compile(tree, "fault", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return ast.dump(tree) != ast.dump(ast.parse(text))
