"""Whether a value of a config fits an annotation, judged from the annotation's text alone."""

import ast
from collections.abc import Callable
from typing import Any


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "Path": lambda value: isinstance(value, str),
    "None": lambda value: value is None,
    "list": lambda value: isinstance(value, list),
    "tuple": lambda value: isinstance(value, list),
    "Sequence": lambda value: isinstance(value, list),
    "Iterable": lambda value: isinstance(value, list),
    "dict": lambda value: isinstance(value, dict),
    "Mapping": lambda value: isinstance(value, dict),
}
_CONTAINERS = {"list", "Sequence", "Iterable"}


def fits(annotation: ast.expr, value: Any) -> bool:
    """True where the value fits, and wherever the annotation says nothing about plain values (a class, a tensor)."""
    if isinstance(value, dict) and "_target_" in value:
        return True  # an object: what it is cannot be seen here
    return any(_fits_one(option, value) for option in _options(annotation))


def wanted(annotation: ast.expr) -> str:
    """The annotation in words: `int or None`."""
    return " or ".join(_words(option) for option in _options(annotation))


def _options(annotation: ast.expr) -> list[ast.expr]:
    """The members of a union; `X | None`, `Union[X, Y]`, `Optional[X]` and quoted annotations included."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _options(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _options(annotation.left) + _options(annotation.right)
    if isinstance(annotation, ast.Subscript):
        name, inner = _name(annotation.value), annotation.slice
        if name == "Optional":
            return [*_options(inner), ast.Constant(None)]
        if name == "Union":
            return [option for member in _elements(inner) for option in _options(member)]
        if name in ("Annotated", "Final"):
            return _options(_elements(inner)[0])
    return [annotation]


def _fits_one(annotation: ast.expr, value: Any) -> bool:
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return value is None
    if isinstance(annotation, ast.Subscript):
        name = _name(annotation.value)
        if name == "Literal":
            return value in [ast.literal_eval(element) for element in _elements(annotation.slice)]
        if name in _CONTAINERS and isinstance(value, list):
            return all(fits(annotation.slice, item) for item in value)
        if name in ("dict", "Mapping") and isinstance(value, dict):
            return all(fits(_elements(annotation.slice)[-1], item) for item in value.values())
        return name not in _CHECKS or _CHECKS[name](value)
    name = _name(annotation)
    return name not in _CHECKS or _CHECKS[name](value)


def _words(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript) and _name(annotation.value) == "Literal":
        return " or ".join(str(ast.literal_eval(element)) for element in _elements(annotation.slice))
    return ast.unparse(annotation)


def _elements(expression: ast.expr) -> list[ast.expr]:
    return expression.elts if isinstance(expression, ast.Tuple) else [expression]


def _name(expression: ast.expr) -> str:
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
