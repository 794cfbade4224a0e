"""Breaks in what makes rollouts fast: graphs, kernels, one step of decoding."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "the new token is not attended",
        "capkit/decoding/fused.py",
        "so_far = slice(position + 1)",
        "so_far = slice(max(position, 1))",
        ("tests/models/captioners/test_fused_step.py",),
    ),
    Break(
        "two captions' rows swapped in attention over the picture",
        "capkit/decoding/fused.py",
        ".unflatten(0, (len(keys), -1)).transpose(1, 2)",
        ".unflatten(0, (-1, len(keys))).transpose(0, 1).transpose(1, 2)",
        ("tests/models/captioners/test_fused_step.py",),
    ),
    Break(
        "cross-attention's norm is self-attention's",
        "capkit/models/captioners/encoder_decoder.py",
        "x, normed = add_norm(x, own.output(attended), layer.norm(1))",
        "x, normed = add_norm(x, own.output(attended), layer.norm(0))",
        (
            (
                "tests/models/captioners/test_fused_step.py::test_captions_are_those_of_the_usual_step[en"
                "coder_decoder_model-]"
            ),
        ),
    ),
    Break(
        "GPT-2's positions are left out",
        "capkit/models/captioners/gpt2_step.py",
        "x = embeddings + model.wpe.weight[position]",
        "x = embeddings + model.wpe.weight[0]",
        (
            (
                "tests/models/captioners/test_fused_step.py::test_captions_are_those_of_the_usual_step[cl"
                "ip_prefix_model-]"
            ),
        ),
    ),
    Break(
        "the picture is left out of VisionEncoderDecoder's fused step",
        "capkit/models/captioners/gpt2_step.py",
        "if images is not None:",
        "if images is not None and number:",
        (
            (
                "tests/models/captioners/test_fused_step.py::test_captions_are_those_of_the_usual_step[vi"
                "sion_encoder_decoder_model-]"
            ),
        ),
    ),
    Break(
        "a mask is ignored by the fused step",
        "capkit/models/captioners/encoder_decoder.py",
        "if past and tokens.shape[1] == 1 and context.mask is None and can_fuse(self, tokens.device):",
        "if past and tokens.shape[1] == 1 and can_fuse(self, tokens.device):",
        (
            (
                "tests/models/captioners/test_fused_step.py::test_masked_context_takes_the_usual_step[enc"
                "oder_decoder_model]"
            ),
        ),
    ),
    Break(
        "graphs captured with adapters on serve a model with adapters off",
        "capkit/decoding/graphs.py",
        "    return hash(addresses), adapters, amp\n",
        "    return hash(addresses), len(adapters), amp\n",
        ("tests/decoding/test_graph_keys.py::test_graphs_of_adapters_are_not_those_without",),
    ),
    Break(
        "graphs know where weights lie, and not where buffers do",
        "capkit/decoding/graphs.py",
        "(*module._parameters.values(), *module._buffers.values())",
        "module._parameters.values()",
        ("tests/decoding/test_graph_keys.py::test_weights_and_buffers_at_other_addresses_are_other_states",),
    ),
    Break(
        "graphs of whole contexts serve masked ones",
        "capkit/decoding/graphs.py",
        "context.states.dtype, context.mask is None, shape",
        "context.states.dtype, shape",
        ("tests/decoding/test_graph_keys.py::test_a_masked_context_and_a_whole_one_have_their_own",),
    ),
    Break(
        "graphs' memory bounds nothing",
        "capkit/decoding/graphs.py",
        "while len(kept) > 1 and graph_bytes(owner) > most:",
        "while len(kept) > MOST_GRAPHS and graph_bytes(owner) > most:",
        ("tests/decoding/test_graph_keys.py::test_the_number_and_the_memory_of_graphs_are_bounded",),
    ),
    Break(
        "tokens past the picture's end are attended",
        "capkit/decoding/kernels.py",
        'scores = tl.where(seen[None, :], scores, -float("inf"))',
        "scores = scores * 1.0",
        ("tests/decoding/test_kernels.py::test_by_the_interpreter",),
    ),
    Break(
        "a draw's second level starts at 0",
        "capkit/decoding/kernels.py",
        "rest = threshold - tl.sum(tl.where(block < number, mass, 0.0), 0)",
        "rest = threshold * 1.0",
        ("tests/decoding/test_kernels.py::test_by_the_interpreter",),
    ),
    Break(
        "samples are drawn without their temperature",
        "capkit/decoding/kernels.py",
        "scores = scores / tl.where(tl.load(uniforms + row) >= 0, temperature, 1.0)",
        "scores = scores / 1.0",
        ("tests/decoding/test_kernels.py::test_by_the_interpreter",),
    ),
    Break(
        "update: hidden states of the filled-up length shifted",
        "capkit/models/captioners/headed.py",
        "(0, padded - length)))[..., :length, :]",
        "(padded - length, 0)))[..., padded - length :, :]",
        ("tests/train/test_ways_of_layers.py::test_a_length_that_is_filled_up_changes_no_loss_and_no_gradient",),
    ),
    Break(
        "a caption is cut without room for EOS",
        "capkit/text/caption_ids.py",
        "room = max_length - len(before) - len(after)",
        "room = max_length - len(before)",
        ("tests/text/test_caption_ids.py",),
    ),
    Break(
        "byte-level tokenizers pass for those that split at spaces",
        "capkit/text/caption_ids.py",
        '    whole = first["type"] in _AT_SPACES or (',
        '    whole = first["type"] in (*_AT_SPACES, "ByteLevel") or (',
        ("tests/text/test_caption_ids.py",),
    ),
]
