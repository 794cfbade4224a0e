"""Low-rank adapters (Hu et al. 2022) through peft: add them in place, save them separately, merge them."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers import PreTrainedModel

from capkit.errors import UsageError, did_you_mean
from capkit.upstream.peft import BaseTunerLayer
from capkit.upstream.transformers import Conv1D
from capkit.utils.files import atomic_path
from capkit.utils.ranges import DropoutRate, PositiveFloat, PositiveInt, check_ranges

_ADAPTABLE = (nn.Linear, nn.Conv2d, Conv1D)
# Names of attention's query and value layers, which the paper adapts, in models of transformers.
_QUERY_AND_VALUE = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("c_attn",),
    ("query_key_value",),
    ("q", "v"),
)


@check_ranges
@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters of linear layers: an adapted weight is W + alpha / rank * B A.

    B starts at zero, so the model's output is unchanged at first.

    Args:
        rank: Of A and B.
        alpha: Scale of the update.
        dropout: On the adapters' input.
        targets: Names of linear layers; null: attention's query and value.
        init_std: A starts normal with this standard deviation; null: peft's uniform initialisation (Kaiming's bound,
            about .02 for width 768). The scale of A multiplies the learning rate of B: it is 1 in the code of No Detail
            Left Behind (arXiv 2409.03025), which trains at 9e-8.
    """

    rank: PositiveInt = 8
    alpha: PositiveInt = 16
    dropout: DropoutRate = 0.0
    targets: list[str] | None = None
    init_std: PositiveFloat | None = None

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> "LoRA":
        names = [spec.name for spec in fields(cls)]
        for name in settings:
            if name not in names:
                raise UsageError(f"lora takes {', '.join(names)}; got {name!r}; {did_you_mean(name, names)}")
        return cls(**settings)

    def add_to(self, model: Any, only: Collection[str] | None = None) -> None:
        """Freeze the model and add trainable adapters, which `adapters_off` disables.

        `only`: names of modules that may get one; None: all may.

        Layers that are already frozen while others are not, such as an unused pooler, get no adapter, since DDP would
        wait for its gradient. Raises UsageError for a target that matches no layer's name or its end.
        """
        layers = {name: m for name, m in model.named_modules() if isinstance(m, _ADAPTABLE) and not _is_bypassed(m)}
        layers = layers if only is None else {name: m for name, m in layers.items() if name in only}
        trainable = [name for name, layer in layers.items() if layer.weight.requires_grad]
        usable = trainable or list(layers)
        targets = self._checked_targets(type(model).__name__, usable)
        named = [name for name, _ in model.named_modules() if any(_matches(target, [name]) for target in targets)]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            exclude_modules=sorted(set(named) - set(usable)) or None,
        )
        model.requires_grad_(False)
        # Not through `model.add_adapter`: transformers 5.24 requires peft 0.22 there, which is not released.
        config.base_model_name_or_path = getattr(model, "name_or_path", None)
        inject_adapter_in_model(config, model)
        for parameter in model.parameters():
            if parameter.requires_grad:  # peft makes them bfloat16 beside 4 bits, which small steps do not move
                parameter.data = parameter.data.float()
        if self.init_std is not None:
            for name, parameter in model.named_parameters():
                if ".lora_A." in name:
                    nn.init.normal_(parameter, std=self.init_std)

    def _checked_targets(self, model_name: str, layers: list[str]) -> list[str]:
        there_are = f"{model_name}'s layers are {', '.join(sorted({name.rpartition('.')[2] for name in layers}))}"
        if not self.targets:
            for names in _QUERY_AND_VALUE:
                if all(_matches(name, layers) for name in names):
                    return list(names)
            raise UsageError(f"lora has no default targets for this model; set lora's targets; {there_are}")
        unmatched = [target for target in self.targets if not _matches(target, layers)]
        if unmatched:
            raise UsageError(f"lora.targets={list(self.targets)}: {unmatched} match nothing; {there_are}")
        return list(self.targets)


def _is_bypassed(layer: nn.Module) -> bool:
    """Whether it is the output layer of torch's MultiheadAttention, which reads its weight and never calls it."""
    return isinstance(layer, NonDynamicallyQuantizableLinear)


def _matches(target: str, layers: list[str]) -> bool:
    """Match as peft does for a list of targets: the complete name, or its end after a dot."""
    return any(name == target or name.endswith(f".{target}") for name in layers)


def only_adapters_train(model: nn.Module) -> bool:
    """Whether disabling the adapters restores the model that training started from."""
    of_adapters = {id(p) for m in model.modules() if isinstance(m, BaseTunerLayer) for p in m.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return bool(trained) and all(id(p) in of_adapters for p in trained)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Disable the model's adapters within the context."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def adapted_part(tower: nn.Module) -> nn.Module:
    """The module to adapt: a tower's transformers model, so that adapters fit the plain model, or else the tower."""
    for module in tower.modules():  # outermost first
        if isinstance(module, PreTrainedModel) or "peft_config" in module.__dict__:
            return module
    return tower


def save_adapters(tower: nn.Module, folder: str | Path) -> None:
    """Save only the tower's adapters, in peft's format: adapter_config.json and adapter_model.safetensors.

    `PeftModel.from_pretrained(plain, folder)` and transformers' `plain.load_adapter(folder)` read them. Raises
    UsageError for a tower without adapters.
    """
    model: Any = adapted_part(tower)
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise UsageError(f"{type(model).__name__} has no adapters to save; they come from tuning with mode=lora")
    state = get_peft_model_state_dict(model)
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_path(Path(folder) / "adapter_model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    model.peft_config["default"].save_pretrained(str(folder))


def merged(model: nn.Module) -> nn.Module:
    """Copy the model with its adapters merged into the plain weights, without any trace of peft."""
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    for module in plain.modules():
        if "peft_config" in module.__dict__:
            del module.__dict__["peft_config"]
    return plain
