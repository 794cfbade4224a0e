"""Reads the arguments of a `_target_` from its source, without importing anything, torch in particular.

A dotted path is resolved as Python would: through packages, `from x import y`, star imports, base classes and dataclass
fields. If the source cannot tell (compiled code, names created at run time), the answer is None, and nothing is
rejected.
"""

import ast
import builtins
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from capkit.errors import UsageError, did_you_mean

# Its names are created at run time, and parsing its thousands of files would take seconds.
_NOT_FOLLOWED = frozenset({"transformers"})

_PLAIN_BASES = frozenset({"str", "int", "float", "Enum", "StrEnum", "IntEnum", "enum.Enum", "TypedDict"})
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Argument:
    """One argument: annotation and default as expressions, None if absent, and the module whose names they are."""

    annotation: ast.expr | None = None
    default: ast.expr | None = None
    module: str = ""


@dataclass(frozen=True)
class Signature:
    """Arguments that can be given by name. `is_open`: the constructor takes **kwargs, hence any name."""

    arguments: dict[str, Argument] = field(default_factory=dict)
    is_open: bool = False


@dataclass(frozen=True)
class _Module:
    name: str
    file: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]


class _UnknownError(Exception):
    """The source cannot tell."""


@cache
def signature(target: str) -> Signature | None:
    """The arguments of a class or function, by its dotted path; None if the source cannot tell.

    Raises UsageError if the package is not installed, or if capkit has no such name.
    """
    try:
        module, definition, owner = _resolve(target, 0)
        if isinstance(definition, ast.ClassDef):
            return _constructor(module, definition, 0) or Signature()
        return _of_function(module, definition, bound=owner is not None and not _decorated(definition, "staticmethod"))
    except _UnknownError:
        return None


def default(target: str, name: str) -> Any:
    """An argument's default if it is plain data; None if it has none, or if the source cannot tell."""
    taken = signature(target)
    argument = taken.arguments.get(name) if taken else None
    try:
        return ast.literal_eval(argument.default) if argument and argument.default else None
    except ValueError:
        return None  # an expression


def names_a_class(module: str, expression: ast.expr) -> bool:
    """Whether a name in a module is a class that no plain value is an instance of; False if the source cannot tell."""
    name = _dotted(expression)
    try:
        where, definition, _ = _resolve(f"{module}.{name}" if module and name else "typing.Any", 0)
    except (_UnknownError, UsageError):
        return False
    if where.name == "typing" or not isinstance(definition, ast.ClassDef):
        return False
    return not {_dotted(base) for base in definition.bases} & _PLAIN_BASES


def summary(target: str) -> str:
    """First line of a class's or function's docstring; empty if it has none, or if the source cannot tell."""
    try:
        _, definition, _ = _resolve(target, 0)
    except _UnknownError:
        return ""
    return (ast.get_docstring(definition) or "").split("\n")[0]


def defining_class(target: str) -> str | None:
    """The dotted path where the class behind a dotted path is defined; None if it is not a class.

    Raises UsageError if capkit has no such name.
    """
    try:
        module, definition, owner = _resolve(target, 0)
    except _UnknownError:
        return None
    return f"{module.name}.{definition.name}" if isinstance(definition, ast.ClassDef) and owner is None else None


def _resolve(target: str, depth: int) -> tuple[_Module, Definition, ast.ClassDef | None]:
    """The definition behind a dotted path, and the class if it is a method."""
    if depth > 20:
        raise _UnknownError
    module, names = _find_module(target)
    if not names:
        raise UsageError(f"_target_ {target!r}: expected a class or function, got a module; name one in it")
    found = _lookup(module, names, depth)
    if found is None:
        if module.name.split(".")[0] == "capkit":
            raise UsageError(_not_found(target, module, names[0]))
        raise _UnknownError
    return found


def _find_module(target: str) -> tuple[_Module, list[str]]:
    """The longest prefix of a dotted path that is a module file, and the remaining names."""
    top, *rest = target.split(".")
    if top in _NOT_FOLLOWED:
        raise _UnknownError
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    if spec is None:
        raise UsageError(f"_target_ {target!r}: no package {top!r} is installed; install it or correct the name")
    if not spec.submodule_search_locations:
        if spec.origin is None or not spec.origin.endswith(".py"):
            raise _UnknownError
        return _read(top, Path(spec.origin)), rest
    folder, name = Path(next(iter(spec.submodule_search_locations))), top
    while rest:
        if (folder / rest[0]).is_dir() and not (folder / f"{rest[0]}.py").exists():
            folder, name = folder / rest[0], f"{name}.{rest.pop(0)}"
        elif (folder / f"{rest[0]}.py").exists():
            file = folder / f"{rest[0]}.py"
            return _read(f"{name}.{rest.pop(0)}", file), rest
        else:
            break
    return _read(name, folder / "__init__.py"), rest


@cache
def _read(name: str, file: Path) -> _Module:
    source = file.read_text(encoding="utf-8") if file.exists() else ""  # a folder without __init__.py is a package too
    try:
        return _Module(name, file, ast.parse(source))
    except SyntaxError as error:
        raise UsageError(f"{file}, line {error.lineno}: {error.msg}; correct the file") from error


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module or class, including those under if, try and with."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _lookup(module: _Module, names: list[str], depth: int) -> tuple[_Module, Definition, ast.ClassDef | None] | None:
    """The definition of a name in a module; None if the module neither defines nor imports it."""
    name, *rest = names
    stars = []
    for statement in reversed(list(_statements(module.tree.body))):
        if isinstance(statement, Definition) and statement.name == name and not _decorated(statement, "overload"):
            return _member(module, statement, rest)
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _assigns(statement, name):
            if statement.value is None or not (alias := _dotted(statement.value)):
                raise _UnknownError
            return _lookup(module, [*alias.split("."), *rest], depth + 1) if depth < 20 else None
        if isinstance(statement, ast.ImportFrom):
            source = _absolute(module, statement)
            for item in statement.names:
                if (item.asname or item.name) == name:
                    return _resolve(".".join([source, item.name, *rest]), depth + 1)
            if statement.names[0].name == "*":
                stars.append(source)
        if isinstance(statement, ast.Import):
            for item in statement.names:
                if (item.asname or item.name.split(".")[0]) == name:
                    path = item.name if item.asname else name
                    return _resolve(".".join([path, *rest]), depth + 1)
    for source in stars:
        starred, left = _find_module(source)
        if not left and starred.name != module.name and depth < 20:
            found = _lookup(starred, names, depth + 1)
            if found:
                return found
    return None


def _member(
    module: _Module, definition: Definition, names: list[str]
) -> tuple[_Module, Definition, ast.ClassDef | None]:
    """A definition itself, or its method of the given name (`AutoModel.from_pretrained`)."""
    if not names:
        return module, definition, None
    if not isinstance(definition, ast.ClassDef) or len(names) > 1:
        raise _UnknownError
    method = _method(definition, names[0])
    if method is None:
        raise _UnknownError  # may be inherited
    return module, method, definition


def _method(definition: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    methods = [s for s in _statements(definition.body) if isinstance(s, ast.FunctionDef) and s.name == name]
    methods = [m for m in methods if not _decorated(m, "overload")]
    return methods[-1] if methods else None


def _constructor(module: _Module, definition: ast.ClassDef, depth: int) -> Signature | None:
    """The arguments of a class; None if neither it nor a base defines a constructor."""
    if module.name == "torch.nn.modules.module" and definition.name == "Module":
        return None  # declared with **kwargs, but rejects every argument
    if _decorated(definition, "dataclass"):
        return Signature(_fields(module, definition, depth))
    for name in ("__init__", "__new__"):
        if method := _method(definition, name):
            return _of_function(module, method, bound=True)
    for base in definition.bases:
        if inherited := _base(module, base, depth):
            return _constructor(inherited[0], inherited[1], depth + 1)
    return None


def _base(module: _Module, expression: ast.expr, depth: int) -> tuple[_Module, ast.ClassDef] | None:
    """The source of a base class that defines or inherits a constructor; None for builtins and the like."""
    expression = expression.value if isinstance(expression, ast.Subscript) else expression
    name = _dotted(expression)
    if depth > 20 or not name:
        raise _UnknownError
    found = _lookup(module, name.split("."), depth)
    if found is None:
        if hasattr(builtins, name):
            return None
        raise _UnknownError
    where, definition, _ = found
    if not isinstance(definition, ast.ClassDef) or definition.name == "NamedTuple":
        raise _UnknownError
    has_own = where.name != "typing" and _constructor(where, definition, depth + 1) is not None
    return (where, definition) if has_own else None


def _fields(module: _Module, definition: ast.ClassDef, depth: int) -> dict[str, Argument]:
    """Arguments that @dataclass generates, those of base classes first."""
    arguments: dict[str, Argument] = {}
    for base in reversed(definition.bases):
        inherited = _base(module, base, depth)
        if inherited and _decorated(inherited[1], "dataclass"):
            arguments.update(_fields(*inherited, depth + 1))
    for statement in definition.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        is_field = "ClassVar" not in ast.unparse(statement.annotation)
        if is_field and not (statement.value and "init=False" in ast.unparse(statement.value)):
            arguments[statement.target.id] = Argument(statement.annotation, statement.value, module.name)
    return arguments


def _of_function(module: _Module, function: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> Signature:
    spec = function.args
    names = [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(names) - len(spec.defaults)) + list(spec.defaults)
    pairs = list(zip(names, defaults, strict=True))[1 if bound else 0 :]
    pairs += list(zip(spec.kwonlyargs, spec.kw_defaults, strict=True))
    arguments = {name.arg: Argument(name.annotation, default, module.name) for name, default in pairs}
    return Signature(arguments, is_open=spec.kwarg is not None)


def _decorated(definition: Definition, name: str) -> bool:
    for decorator in definition.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if _dotted(called).rpartition(".")[2] == name:
            return True
    return False


def _assigns(statement: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _dotted(expression: ast.expr) -> str:
    """`a.b.c` for an expression of that form, else an empty string."""
    if isinstance(expression, ast.Name):
        return expression.id
    if isinstance(expression, ast.Attribute) and (owner := _dotted(expression.value)):
        return f"{owner}.{expression.attr}"
    return ""


def _absolute(module: _Module, statement: ast.ImportFrom) -> str:
    """The absolute name of a module in `from ... import`."""
    if not statement.level:
        return statement.module or ""
    parts = module.package.split(".")
    parts = parts[: len(parts) - statement.level + 1]
    return ".".join([*parts, statement.module] if statement.module else parts)


def _not_found(target: str, module: _Module, name: str) -> str:
    valid = {s.name for s in _statements(module.tree.body) if isinstance(s, Definition) and not s.name.startswith("_")}
    if module.file.name == "__init__.py":
        valid |= {path.stem for path in module.file.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
        valid = {word for word in valid if not word.startswith("_")}
    return f"_target_ {target!r}: {module.name} has no {name!r}; {did_you_mean(name, valid)}"
