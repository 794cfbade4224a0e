"""Breaks in CoCa: its mask, cache, parts, exports and words, and adapters that would do nothing."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "CoCa: padding's id hides nothing",
        "capkit/models/captioners/coca_network.py",
        "return ~hidden[:, :, None] & (places",
        "return (hidden[:, :, None] | True) & (places",
        ("tests/models/captioners/test_coca.py::test_logits_are_those_of_open_clip_and_so_are_gradients",),
    ),
    Break(
        "CoCa: padding's id hides itself, not the token behind it",
        "capkit/models/captioners/coca_network.py",
        "nn.functional.pad(padding[..., 0], (1, -1)).bool()",
        "padding[..., 0].bool()",
        ("tests/models/captioners/test_coca.py::test_logits_are_those_of_open_clip_and_so_are_gradients",),
    ),
    Break(
        "CoCa: the cache forgets where padding's id stood",
        "capkit/models/captioners/coca_network.py",
        "        if cache is not None:\n            padding, _",
        "        if past == 0 and cache is not None:\n            padding, _",
        ("tests/models/captioners/test_coca.py::test_the_token_behind_the_id_of_padding_is_hidden_with_the_cache_too",),
    ),
    Break(
        "CoCa: positions begin anew at each written token",
        "capkit/models/captioners/coca_network.py",
        "self.positional_embedding[past : past + tokens.shape[1]]",
        "self.positional_embedding[: tokens.shape[1]]",
        ("tests/models/captioners/test_coca.py::test_greedy_captions_are_those_of_open_clips_generate",),
    ),
    Break(
        "CoCa: layers of the decoder share the text tower's cache",
        "capkit/models/captioners/coca_network.py",
        "layers = enumerate(decoder.resblocks, first_layer)",
        "layers = enumerate(decoder.resblocks)",
        ("tests/models/captioners/test_every_captioner.py::test_generation_equals_teacher_forcing_in_any_batch",),
    ),
    Break(
        "CoCa: the image's tokens are not normed",
        "capkit/models/captioners/coca_network.py",
        "keys_and_values(self.ln_1_kv(states))",
        "keys_and_values(states)",
        ("tests/models/captioners/test_coca.py::test_logits_are_those_of_open_clip_and_so_are_gradients",),
    ),
    Break(
        "CoCa: bare parameters of a frozen image tower train",
        "capkit/models/captioners/coca.py",
        "            if part_of(weight) in freeze:",
        "            if part_of(weight) in freeze and not weight.endswith('embedding'):",
        ("tests/models/captioners/test_coca.py::test_parts_that_are_frozen_get_no_gradient_and_the_others_do",),
    ),
    Break(
        "CoCa: what only contrasting reads trains",
        "capkit/models/captioners/coca_network.py",
        "                parameter.requires_grad_(False)\n\n    @classmethod",
        "                parameter.requires_grad_(True)\n\n    @classmethod",
        ("tests/models/captioners/test_coca.py::test_parts_that_are_frozen_get_no_gradient_and_the_others_do",),
    ),
    Break(
        "CoCa: an export holds the keys in the place of the queries",
        "capkit/models/captioners/coca_network.py",
        "torch.cat([value, state[",
        "torch.cat([value.flip(0), state[",
        ("tests/models/captioners/test_coca.py::test_all_weights_of_open_clip_go_in_and_out_unchanged",),
    ),
    Break(
        "CoCa: an export reads pictures as the released weights did, not as the run",
        "capkit/models/captioners/coca_network.py",
        'reads = {name: pictures[name] for name in ("mean", "std")}',
        "reads = dict(reads)",
        (
            "tests/models/captioners/test_coca.py::test_the_python_api_loads_a_folder_of_open_clip_and_reads_pictures_as_it_does",
        ),
    ),
    Break(
        "CoCa: an export's own words are left out",
        "capkit/models/captioners/coca_network.py",
        'config["text_cfg"]["hf_tokenizer_name"] = "tokenizer.json"',
        "pass",
        ("tests/models/captioners/test_coca.py::test_folders_and_files_of_weights_are_loaded",),
    ),
    Break(
        "CoCa: ends of words stay in captions",
        "capkit/models/captioners/coca.py",
        'decoders.Replace("</w>", " ")',
        'decoders.Replace("</w>", "</w>")',
        ("tests/models/captioners/test_coca.py::test_the_tokenizer_is_open_clips",),
    ),
    Break(
        "Adapters of torch's own attention do nothing",
        "capkit/models/tuning/lora.py",
        "return isinstance(layer, NonDynamicallyQuantizableLinear)",
        "return False",
        ("tests/models/captioners/test_coca.py::test_adapters_of_torchs_own_attention_are_refused",),
    ),
    Break(
        "CoCa: the head of a new network is not drawn",
        "capkit/models/captioners/coca_network.py",
        "nn.init.normal_(network.text_decoder.text_projection, std=network.text_decoder.width**-0.5)",
        "nn.init.zeros_(network.text_decoder.text_projection)",
        ("tests/models/captioners/test_coca.py::test_a_network_from_a_config_has_a_head_that_was_drawn",),
    ),
]
