"""Which weights of a text or image tower train."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch import nn

from capkit.errors import UsageError, check_choice
from capkit.models.tuning.layers import after_blocks_of, blocks_of
from capkit.models.tuning.lora import LoRA, adapted_part
from capkit.utils.ranges import DropoutRate, PositiveInt, check_ranges
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # eval_frozen is in `frozen`

MODES = ("frozen", "head", "projection", "last_n", "lora", "full")


@check_ranges
@dataclass(frozen=True)
class Tuning:
    """Which weights of a tower and of the projections after it train.

    | mode | tower | projections |
    | --- | --- | --- |
    | frozen, head | nothing | no |
    | projection | nothing | yes |
    | last_n | the last `n` layers and everything after them | yes |
    | lora | adapters of `rank`, `alpha` and `dropout` in the `targets` (None: attention's query and value) | yes |
    | full | everything | yes |

    frozen and head treat the tower alike; head documents that a head outside it trains. Weights frozen before, such as
    unused poolers, stay frozen in every mode. Learning rates of parts are set by optimizer.lr_multipliers.

    Raises UsageError for an unknown mode or a setting that belongs to another mode.
    """

    mode: str = "full"
    n: PositiveInt | None = None
    rank: PositiveInt = 8
    alpha: PositiveInt = 16
    dropout: DropoutRate = 0.0
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        check_choice("tuning mode", self.mode, MODES)
        if (self.n is not None) != (self.mode == "last_n"):
            raise UsageError(
                f"n, the number of tuned layers, belongs to mode=last_n only; got mode={self.mode} and n={self.n}"
            )
        if self.targets is not None and self.mode != "lora":
            raise UsageError(f"targets, the adapted layers, belong to mode=lora only; got mode={self.mode}")
        self._lora()

    def apply(
        self,
        tower: nn.Module,
        projections: Sequence[nn.Module] = (),
        blocks: Sequence[nn.Module] | None = None,
        after_blocks: Sequence[nn.Module] | None = None,
    ) -> None:
        """Freeze all other weights, and add adapters in mode lora. Never unfreezes.

        `blocks` and `after_blocks` are the tower's layers and the modules after them; found by structure if None.
        Raises UsageError if the tower or projections have nothing to train in this mode, or if n is too large.
        """
        self._check_trainable(tower, projections)
        if self.mode == "full":
            return
        if self.mode == "last_n":
            layers = blocks_of(tower) if blocks is None else list(blocks)
            after = after_blocks_of(tower) if after_blocks is None else list(after_blocks)
            _freeze_all_but(tower, [*self._last(layers, tower), *after])
        elif self.mode == "lora":
            part = adapted_part(tower)
            _freeze_all_but(tower, [part])
            self._lora().add_to(part)
        else:
            tower.requires_grad_(False)
        if self.mode in ("frozen", "head"):
            for projection in projections:
                projection.requires_grad_(False)

    def _lora(self) -> LoRA:
        return LoRA(self.rank, self.alpha, self.dropout, self.targets)

    def _check_trainable(self, tower: nn.Module, projections: Sequence[nn.Module]) -> None:
        if self.mode == "projection" and not any(p.requires_grad for m in projections for p in m.parameters()):
            raise UsageError(
                "mode=projection needs a trainable projection; this tower has none; use head or another mode"
            )
        if self.mode in ("last_n", "lora", "full") and not any(p.requires_grad for p in tower.parameters()):
            raise UsageError(
                f"mode={self.mode} needs a tower with trainable weights; {type(tower).__name__} has none: build it "
                "with frozen=false, or use mode=projection"
            )

    def _last(self, layers: list[nn.Module], tower: nn.Module) -> list[nn.Module]:
        assert self.n is not None
        if not layers:
            raise UsageError(
                f"mode=last_n needs a tower of layers; {type(tower).__name__} has none; use projection, lora or full"
            )
        if self.n > len(layers):
            raise UsageError(f"mode=last_n with n={self.n}: {type(tower).__name__} has {len(layers)} layers")
        return layers[-self.n :]


def _freeze_all_but(tower: nn.Module, kept: Sequence[nn.Module]) -> None:
    keep = {id(parameter) for parameter in chain.from_iterable(module.parameters() for module in kept)}
    for parameter in tower.parameters():
        if id(parameter) not in keep:
            parameter.requires_grad_(False)
