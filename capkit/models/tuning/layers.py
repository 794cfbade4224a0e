"""Find a tower's layers by its structure: transformers of any kind, ResNets, EfficientNets, small CNNs."""

import inspect

from torch import nn

from capkit.errors import UsageError


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The tower's layers in order: from its `blocks()`, its only ModuleList, or its only Sequential; else empty.

    Only the outermost list counts (a Swin's stages, not the layers within), without parts that have no weights. Raises
    UsageError if there are several lists (encoder and decoder, or image and text half).
    """
    if _is_method(tower, "blocks"):
        return tower.blocks()  # type: ignore[operator]
    path = _path_to_blocks(tower)
    return _stages(path[-1][1]) if path else []


def after_blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The modules with parameters after the tower's layers: final norms, poolers, projections."""
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
    """Names and modules on the path from the tower to the container of its layers."""
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
