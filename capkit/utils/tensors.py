"""Small things that several rooms do with tensors."""

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor


def default_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def send(value: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on a device. The host does not wait for what the device still has to do."""
    if torch.device(device).type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)  # from other memory the copy waits its turn


def unit(vectors: Num[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    """Unit norm in float32, whatever the precision of the network; a zero vector stays zero."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def first_of_each(ids: Int[Tensor, " N"]) -> Int[Tensor, " k"]:
    """Index of the first occurrence of each distinct id, in ascending order of the ids."""
    ordered, places = ids.sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return places[is_first]
