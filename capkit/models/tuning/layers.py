"""Which layers a tower has, found by its structure: transformers of any kind, ResNets, EfficientNets, small CNNs."""

import inspect

from torch import nn

from capkit.errors import UsageError


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The tower's layers in order: those it names itself by `blocks()`, its one list of modules, or its one sequence.

    The outermost list counts: a Swin's stages, not the layers in each; parts without weights do not. Empty where there
    is neither.
    Raises UsageError where there are several lists (an encoder beside a decoder, an image half beside a text half).
    """
    if _is_method(tower, "blocks"):
        return tower.blocks()  # type: ignore[operator]
    path = _path_to_blocks(tower)
    return _stages(path[-1][1]) if path else []


def after_blocks_of(tower: nn.Module) -> list[nn.Module]:
    """What stands after the layers in the tower and has parameters: final norms, poolers, projections."""
    if _is_method(tower, "after_blocks"):
        return tower.after_blocks()  # type: ignore[operator]
    after: list[nn.Module] = []
    owner = tower
    for name, module in _path_to_blocks(tower):
        names = [child for child, _ in owner.named_children()]
        later = [getattr(owner, child) for child in names[names.index(name) + 1 :]]
        after = [child for child in later if any(True for _ in child.parameters())] + after
        owner = module
    return after


def _is_method(tower: nn.Module, name: str) -> bool:
    return inspect.ismethod(getattr(tower, name, None))


def _stages(container: nn.Module) -> list[nn.Module]:
    return [child for child in container.children() if any(True for _ in child.parameters())]


def _path_to_blocks(tower: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules from the tower down to the container of its layers."""
    for kind in (nn.ModuleList, nn.Sequential):
        found = _outermost(tower, kind)
        if len(found) > 1:
            names = [".".join(name for name, _ in path) for path in found]
            raise UsageError(
                f"last_n needs one list of layers; {type(tower).__name__} has {len(names)}: {', '.join(names)}; "
                "tune one tower at a time, or use another mode"
            )
        if found:
            return found[0]
    return []


def _outermost(module: nn.Module, kind: type[nn.Module]) -> list[list[tuple[str, nn.Module]]]:
    paths = []
    for name, child in module.named_children():
        if isinstance(child, kind) and len(_stages(child)) > 0:
            paths.append([(name, child)])
        else:
            paths += [[(name, child), *rest] for rest in _outermost(child, kind)]
    return paths
