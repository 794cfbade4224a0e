"""Where a constructor takes objects alone, a text or number is refused: `data.test=WORD`, `model.image_encoder=vit`."""

import ast
from typing import Any

from capkit.config.annotations import alternatives, wanted
from capkit.config.signatures import Argument, names_a_class


def wants_object(argument: Argument, value: Any) -> bool:
    """Whether a plain value is given where each alternative of the annotation is a class."""
    if not isinstance(value, str | int | float) or argument.annotation is None:
        return False
    kinds = alternatives(argument.annotation)
    return bool(kinds) and all(_is_callable(kind) or names_a_class(argument.module, kind) for kind in kinds)


def _is_callable(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).startswith("Callable[")


def wanted_object(key: str, annotation: ast.expr, shown: str) -> str:
    return (
        f"expected {wanted(annotation)}, got {shown}; give a class with its arguments, "
        f"{key}={{_target_: CLASS, KEY: VALUE}}, or change the one there by {key}.KEY=VALUE"
    )
