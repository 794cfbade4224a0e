"""Logits at the ends of token sequences in groups whose members begin alike: what a group shares is run once.

G groups, R rows of a batch, P tokens of what is shared, S tokens behind it, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from capkit.upstream.transformers import as_cache, cache_rows


def last_logits(
    model: Any,
    groups: Sequence[Sequence[Sequence[int]]],
    num_last: Sequence[Sequence[int]],
    batch_size: int,
) -> Iterator[tuple[int, int, Float[Tensor, "n V"]]]:
    """Group, member and the logits at the last `num_last` tokens of each member: those of `batches_of_last_logits`."""
    for places, logits in batches_of_last_logits(model, groups, num_last, batch_size):
        for (group, member), found in zip(places, logits, strict=True):
            yield group, member, found[len(found) - num_last[group][member] :]


@torch.inference_mode()
def batches_of_last_logits(
    model: Any,
    groups: Sequence[Sequence[Sequence[int]]],
    num_last: Sequence[Sequence[int]],
    batch_size: int,
) -> Iterator[tuple[list[tuple[int, int]], Float[Tensor, "R n V"]]]:
    """Groups and members of a batch, in order of length, with the logits at the last tokens, as many as one wants.

    A causal model of transformers reads the tokens with which all of a group's members begin once, in batches of like
    length, and then what follows, likewise, with the keys and values of the first pass. Padding stands on the left and
    is not attended, so that a row's logits do not depend on its batch, but for rounding.
    """
    shared = [_num_shared(group, kept) for group, kept in zip(groups, num_last, strict=True)]
    order = sorted((place for place, group in enumerate(groups) if group), key=lambda place: (shared[place], place))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        cache, is_read = _run_shared(model, [list(groups[place][0][: shared[place]]) for place in places])
        rows = [(row, member) for row, place in enumerate(places) for member in range(len(groups[place]))]
        rests = {(row, member): groups[places[row]][member][shared[places[row]] :] for row, member in rows}
        rows.sort(key=lambda at: (len(rests[at]), at))
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            most = max(num_last[places[row]][member] for row, member in batch)
            logits = _run_rests(
                model, cache, is_read, [row for row, _ in batch], [list(rests[at]) for at in batch], most
            )
            yield [(places[row], member) for row, member in batch], logits


def _num_shared(group: Sequence[Sequence[int]], num_last: Sequence[int]) -> int:
    """How many first tokens all have, without those whose logits are wanted."""
    if not group:
        return 0
    first, last = min(map(list, group)), max(map(list, group))
    common = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(common, *(len(tokens) - kept for tokens, kept in zip(group, num_last, strict=True)))


def _run_shared(model: Any, tokens: Sequence[list[int]]) -> tuple[DynamicCache, Bool[Tensor, "R P"]]:
    padded, is_read = _left_padded(tokens, model.device)
    cache = DynamicCache()
    if padded.shape[1]:
        _run(model, padded, is_read, is_read, cache, 1)
    return cache, is_read


def _run_rests(
    model: Any,
    shared: DynamicCache,
    is_read: Bool[Tensor, "G P"],
    rows: list[int],
    tokens: list[list[int]],
    num_last: int,
) -> Float[Tensor, "R n V"]:
    padded, own = _left_padded(tokens, model.device)
    places = torch.tensor(rows, device=model.device)
    mask = torch.cat([is_read[places], own], dim=1)
    return _run(model, padded, own, mask, cache_rows(shared, places), num_last)


def _run(
    model: Any,
    tokens: Int[Tensor, "R T"],
    own: Bool[Tensor, "R T"],
    mask: Bool[Tensor, "R K"],
    cache: DynamicCache,
    num_last: int,
) -> Float[Tensor, "R n V"]:
    positions = (mask.long().cumsum(1) - 1)[:, -tokens.shape[1] :]
    out = model(
        input_ids=tokens, attention_mask=mask.long(), position_ids=positions.masked_fill(~own, 0), use_cache=True,
        logits_to_keep=num_last, **as_cache(cache),
    )  # fmt: skip
    return out.logits.float()


def _left_padded(tokens: Sequence[list[int]], device: Any) -> tuple[Int[Tensor, "R T"], Bool[Tensor, "R T"]]:
    """Padding is token 0, which nothing attends to."""
    length = max(map(len, tokens))
    padded = torch.tensor([[0] * (length - len(row)) + row for row in tokens], dtype=torch.long, device=device)
    own = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in tokens], device=device)
    return padded.view(len(tokens), length), own.view(len(tokens), length).bool()
