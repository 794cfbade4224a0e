"""The decoding loop as captured CUDA graphs: a rollout is launched in a few calls instead of thousands."""

import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from capkit.decoding.capture import capture, capturing, own_stream
from capkit.decoding.cast import is_sharded
from capkit.decoding.engine import Given, Plan, Written, run, steps
from capkit.decoding.guided import GuidedCaptioner
from capkit.types import Context
from capkit.upstream.peft import BaseTunerLayer

STEPS_A_GRAPH = 5  # the host looks for captions that have ended between graphs
MOST_GRAPHS = 8  # shapes and settings of one captioner whose graphs are kept; each holds its caches and logits
MOST_MEMORY = 0.25  # of the GPU, in which all of them but the last used must fit


class RolloutGraphs:
    """A plan's steps for one shape, captured in graphs of a few steps that share their memory.

    Weights are read where they lay at capture, so that training in place is seen. Their addresses are in the key.
    """

    def __init__(self, captioner: Any, context: Context, plan: Plan, ids: Int[Tensor, "B S"]) -> None:
        mask = None if context.mask is None else context.mask.clone()
        conditions = None if context.conditions is None else context.conditions.clone()
        self.context = Context(context.states.clone(), mask, list(context.keys), conditions)
        # What a graph reads is read at its address: all of it is held here.
        self.given = Given.of(plan, ids.clone())
        self.graphs: list[torch.cuda.CUDAGraph] = []
        self.all_ended: list[Tensor] = []
        self.written = Written()

        def run() -> None:
            for _ in steps(captioner, self.context, plan, self.given):
                pass

        stream = own_stream(self)
        with capturing(run, stream), closing(steps(captioner, self.context, plan, self.given)) as loop:
            pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved()
            while len(self.written.tokens) < plan.decoding.max_length:
                graph = torch.cuda.CUDAGraph()
                with capture(graph, stream, pool):
                    for written in islice(loop, STEPS_A_GRAPH):
                        self.written = written
                    self.all_ended.append(self.written.ended[-1].all())
                self.graphs.append(graph)
        # What the pool reserved: within it steps share what they do not keep, and nobody else gets it.
        self.num_bytes = torch.cuda.memory_reserved() - before
        self._seen = torch.zeros(len(self.graphs), dtype=torch.bool, pin_memory=True)
        self._copied = [torch.cuda.Event() for _ in self.graphs]

    def __call__(self, context: Context, ids: Int[Tensor, "B S"]) -> Written:
        """Captions of these images. What is returned is overwritten by the next call."""
        self.context.states.copy_(context.states)
        if self.context.mask is not None and context.mask is not None:
            self.context.mask.copy_(context.mask)
        if self.context.conditions is not None and context.conditions is not None:
            self.context.conditions.copy_(context.conditions)
        self.given.ids.copy_(ids)
        num_steps = 0
        for number, graph in enumerate(self.graphs):
            # The host waits for the graph before the last one, while the device still has the last one to do.
            if number >= 2:
                self._copied[number - 2].synchronize()
                if self._seen[number - 2]:
                    break
            graph.replay()
            self._seen[number].copy_(self.all_ended[number], non_blocking=True)
            self._copied[number].record()
            num_steps = min(num_steps + STEPS_A_GRAPH, len(self.written.tokens))
        return self.written.first(num_steps)


# By captioner: graphs by key, None for a key that came once.
_kept: weakref.WeakKeyDictionary[Any, OrderedDict[Any, RolloutGraphs | None]] = weakref.WeakKeyDictionary()


def _key(captioner: Any, context: Context, plan: Plan) -> Any:
    parts, head = captioner.decoder_parts()
    shape = None if context.conditions is None else (tuple(context.conditions.shape), context.conditions.dtype)
    inputs = tuple(context.states.shape), context.states.dtype, context.mask is None, shape
    return plan, *inputs, state_of((*parts, head))


def state_of(parts: Iterable[nn.Module]) -> Any:
    """What a graph of these modules holds fixed: where weights and buffers lie, which adapters act, autocast's type."""
    modules = list({id(module): module for part in parts for module in part.modules()}.values())
    held = (value for module in modules for value in (*module._parameters.values(), *module._buffers.values()))
    addresses = tuple(value.data_ptr() for value in held if value is not None)
    adapters = tuple(
        (layer.disable_adapters, layer.merged, tuple(layer.active_adapters))
        for layer in modules
        if isinstance(layer, BaseTunerLayer)
    )
    amp = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    return hash(addresses), adapters, amp


def can_run_graphs(captioner: Any, context: Context) -> bool:
    """Whether the captioner's steps can be captured: on a GPU, with weights that stay where they are.

    Prompts differ in length from batch to batch: a shape would seldom come again.
    """
    if context.states.device.type != "cuda" or context.prompts is not None or not captioner.is_graphable():
        return False
    parts, head = captioner.decoder_parts()
    return not any(is_sharded(parameter) for part in (*parts, head) for parameter in part.parameters())


def run_graphs(captioner: Any, context: Context, plan: Plan, ids: Int[Tensor, "B S"]) -> Written:
    """The loop by graphs. They are captured when a shape comes again: a capture takes the time of several rollouts."""
    owner = captioner.captioner if isinstance(captioner, GuidedCaptioner) else captioner
    kept = _kept.setdefault(owner, OrderedDict())
    key = _key(captioner, context, plan)
    is_new = key not in kept
    graphs = kept.setdefault(key, None)
    kept.move_to_end(key)
    if is_new:
        while len(kept) > MOST_GRAPHS:
            kept.popitem(last=False)
        return run(captioner, context, plan, ids)
    if graphs is None:
        graphs = kept[key] = RolloutGraphs(captioner, context, plan, ids)
        most = MOST_MEMORY * torch.cuda.mem_get_info()[1]
        while len(kept) > 1 and graph_bytes(owner) > most:
            kept.popitem(last=False)
    return graphs(context, ids)


def graph_bytes(captioner: Any) -> int:
    """GPU memory that the captioner's graphs hold."""
    return sum(graphs.num_bytes for graphs in _kept.get(captioner, {}).values() if graphs is not None)


def release_graphs(captioner: Any) -> None:
    """Free the memory of all graphs of a captioner."""
    _kept.pop(captioner, None)
