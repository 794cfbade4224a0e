"""Check a config value against an argument's annotation, given as source text."""

import ast
from collections.abc import Callable
from typing import Any

from capkit.utils.ranges import ALIASES, Interval, Length, Range, is_finite, is_number

_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and is_finite(value),
    "float": lambda value: isinstance(value, int | float) and is_finite(value),
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
    """Whether the value fits. Also True if the annotation does not describe plain values (a class, a tensor)."""
    options = _options(annotation)
    if isinstance(value, dict) and "_target_" in value:  # an object, whose class is not known here
        return not all(_is_number_or_none(option) for option in options)
    if is_number(value) and any(_interval(option) for option in options):
        # Not the classes of the union, which accept anything: a number is not an instance of them.
        options = [option for option in options if _interval(option) or _name(option) in ("", *_CHECKS)]
    return any(_fits_one(option, value) for option in options)


def alternatives(annotation: ast.expr) -> list[ast.expr]:
    """Members of a union, null left out; the annotation itself if it is none."""
    return [one for one in _options(annotation) if not (isinstance(one, ast.Constant) and one.value is None)]


def wanted(annotation: ast.expr) -> str:
    """The annotation in words: `int or null`, `a finite number greater than 0`."""
    return " or ".join(dict.fromkeys(_words(option) for option in _options(annotation)))


def _options(annotation: ast.expr) -> list[ast.expr]:
    """Members of a union: of `X | None`, `Union[X, Y]`, `Optional[X]`, also within quotes."""
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
        if name == "Final" or (name == "Annotated" and not _metadata(annotation)):
            return _options(_elements(inner)[0])
    return [annotation]


def _metadata(annotation: ast.expr) -> list[Range | Length]:
    """The ranges and lengths in an `Annotated[...]`; other metadata is ignored."""
    if not isinstance(annotation, ast.Subscript) or _name(annotation.value) != "Annotated":
        return []
    found: list[Range | Length] = []
    for call in _elements(annotation.slice)[1:]:
        if isinstance(call, ast.Call) and (kind := {"Range": Range, "Length": Length}.get(_name(call.func))):
            positional = [ast.literal_eval(argument) for argument in call.args]
            found.append(kind(*positional, **{str(k.arg): ast.literal_eval(k.value) for k in call.keywords}))
    return found


def _interval(annotation: ast.expr) -> Interval | None:
    """The range of numbers denoted by an alias of `capkit.utils.ranges`, or by `Annotated[int, Range(...)]`."""
    if found := next((item for item in _metadata(annotation) if isinstance(item, Range)), None):
        assert isinstance(annotation, ast.Subscript)
        return Interval(_name(_elements(annotation.slice)[0]) == "int", found)
    return ALIASES.get(_name(annotation))


def _fits_one(annotation: ast.expr, value: Any) -> bool:
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return value is None
    if interval := _interval(annotation):
        return isinstance(value, int | float) and value in interval
    if metadata := _metadata(annotation):
        assert isinstance(annotation, ast.Subscript)
        lengths = [item.count for item in metadata if isinstance(item, Length)]
        return fits(_elements(annotation.slice)[0], value) and (not isinstance(value, list) or len(value) in lengths)
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


def _is_number_or_none(annotation: ast.expr) -> bool:
    is_none = isinstance(annotation, ast.Constant) and annotation.value is None
    return is_none or _interval(annotation) is not None or _name(annotation) in ("int", "float", "bool")


def _words(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return "null"
    if interval := _interval(annotation):
        return str(interval)
    if isinstance(annotation, ast.Subscript):
        name, elements = _name(annotation.value), _elements(annotation.slice)
        if name == "Literal":
            return " or ".join(str(ast.literal_eval(element)) for element in elements)
        if name == "Annotated":
            lengths = [str(item) for item in _metadata(annotation) if isinstance(item, Length)]
            return f"{' and '.join(lengths)}, {_words(elements[0]).removeprefix('a list, ')}"
        if name in _CONTAINERS and _interval(annotation.slice):
            return f"a list, each member {_words(annotation.slice)}"
    return ast.unparse(annotation)


def _elements(expression: ast.expr) -> list[ast.expr]:
    return expression.elts if isinstance(expression, ast.Tuple) else [expression]


def _name(expression: ast.expr) -> str:
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
