"""Modules that do not train: no gradient, and eval mode even if their owner trains."""

from torch import nn


def freeze_if(frozen: bool, module: nn.Module) -> None:
    """Freeze the module's weights and put it into eval mode, if `frozen`."""
    if frozen:
        module.requires_grad_(False)
        module.eval()


def set_mode(encoder: nn.Module, frozen: bool, mode: bool) -> None:
    """`nn.Module.train(mode)`, but frozen parts stay in eval mode."""
    nn.Module.train(encoder, mode and (not frozen or trains(encoder)))
    if frozen and encoder.training:
        for part in encoder.children():
            eval_frozen(part)


def trains(module: nn.Module) -> bool:
    """Whether any of the module's weights is trainable, adapters included."""
    return any(parameter.requires_grad for parameter in module.parameters())


def eval_frozen(module: nn.Module) -> None:
    """Put every part whose weights are all frozen into eval mode: no dropout, and BatchNorm keeps its statistics.

    The owner of towers calls this at the end of its `train`.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        eval_frozen(child)
