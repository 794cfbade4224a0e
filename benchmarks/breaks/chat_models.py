"""Breaks in chat models as captioners."""

from benchmarks.breaks.planted import Break

MODELS = "capkit/models/captioners/"
ROWS, FAMILIES, TEMPLATE, VLM = (f"{MODELS}chat_{name}.py" for name in ("rows", "families", "template", "vlm"))
READING, SHARING = (f"{MODELS}chat_{name}.py" for name in ("reading", "sharing"))
TESTS = "tests/models/captioners/test_chat_vlm.py::test_"
SHARED = "tests/models/captioners/test_chat_sharing.py::test_"
OF_A_ROW_EACH = (f"{SHARED}logprobs_and_gradients_are_those_of_a_row_for_each_caption",)
EQUALITY = (f"{TESTS}logprobs_and_gradients_are_those_of_transformers_one_row_at_a_time",)

BREAKS = [
    Break(
        "chat models: what follows a picture counts its tokens as positions",
        ROWS,
        "places - self.num_image_tokens + side",
        "places",
        EQUALITY,
    ),
    Break(
        "chat models: rows and columns of M-RoPE swapped",
        ROWS,
        "inside // side, inside % side]",
        "inside % side, inside // side]",
        EQUALITY,
    ),
    Break(
        "chat models: PaliGemma's prompt attends causally",
        ROWS,
        "if past or not self.family.reads_both_ways:",
        "if True:",
        EQUALITY,
    ),
    Break(
        "chat models: PaliGemma attends to padding in front of prompts",
        ROWS,
        "is_first[:, None] & is_first & seen_by_last",
        "is_first[:, None] & is_first",
        (f"{TESTS}a_caption_answers_its_own_prompt_whatever_the_padding",),
    ),
    Break(
        "chat models: patches row by row in place of squares",
        FAMILIES,
        "cut.permute(0, 2, 5, 3, 6, 1, 4, 7)",
        "cut.permute(0, 2, 3, 5, 6, 1, 4, 7)",
        EQUALITY,
    ),
    Break(
        "chat models: the tower's own mean and deviation forgotten",
        f"{MODELS}chat_pictures.py",
        "pixels * scale + shift",
        "pixels",
        EQUALITY,
    ),
    Break("chat models: Qwen3-VL's deeper features dropped", READING, "if not deeper:", "if True:", EQUALITY),
    Break(
        "chat models: unread layers wait for a gradient",
        VLM,
        "        freeze_unread(self.image_encoder, self.image_size)\n",
        "",
        (f"{TESTS}parts_that_are_not_frozen_get_gradients_and_no_other",),
    ),
    Break(
        "chat models: PaliGemma's tokenizer adds BOS in front of the picture",
        FAMILIES,
        "        adds_special_tokens=False,\n",
        "",
        (f"{TESTS}no_second_bos_by_a_tokenizer_that_adds_one",),
    ),
    Break(
        "chat models: no BOS where the template writes none",
        TEMPLATE,
        "add_special_tokens=special",
        "add_special_tokens=False",
        (f"{TESTS}no_second_bos_by_a_tokenizer_that_adds_one",),
    ),
    Break(
        "chat models: layers that look back less far than a row is long",
        VLM,
        "if window is not None and before",
        "if False and before",
        (f"{TESTS}what_cannot_be_is_told_before_work_starts",),
    ),
    Break(
        "chat models: captions end by the tokenizer's EOS, which the template does not write",
        VLM,
        "self._template.end() or tokenizer.eos_token",
        "tokenizer.eos_token",
        (f"{TESTS}a_caption_ends_where_the_template_ends_an_answer",),
    ),
    Break(
        "chat models: an export keeps the published penalty of repeated words",
        "capkit/checkpoint/exported.py",
        "        plain.model.generation_config = _plain_generation(model)\n",
        "        pass\n",
        (f"{TESTS}an_export_is_greedy_whatever_settings_the_published_model_has",),
    ),
    Break(
        "chat models: a template may leave out the system message",
        TEMPLATE,
        '(("question", question), ("system", self.system or ""))',
        '(("question", question),)',
        (f"{TESTS}what_cannot_be_is_told_before_work_starts",),
    ),
    Break(
        "chat models: a caption sees those in front of it in its row",
        SHARING,
        "together = (caption[:, None] == caption) | (caption == 0)",
        "together = caption[:, None] >= caption",
        (f"{SHARED}a_caption_does_not_see_the_others_of_its_row",),
    ),
    Break(
        "chat models: captions of a row count on from each other",
        SHARING,
        "return alone[..., self._places(alone.device)[0]]",
        "return nn.functional.pad(alone, (0, (self.captions - 1) * self.places), value=int(alone.max()))",
        OF_A_ROW_EACH,
    ),
    Break(
        "chat models: each caption's first token is predicted by the caption in front of it",
        SHARING,
        "hidden[:, None, self.prefix - 1 : self.prefix].expand(-1, self.captions, -1, -1)",
        "hidden[:, self.prefix - 1 : -1].unflatten(1, (self.captions, self.places))[:, :, :1]",
        OF_A_ROW_EACH,
    ),
    Break(
        "chat models: rows of a picture follow those of the next one",
        SHARING,
        "torch.cat([last, own], 2).unflatten(0, (num_images, -1))",
        "torch.cat([last, own], 2).unflatten(0, (-1, num_images)).transpose(0, 1)",
        OF_A_ROW_EACH,
    ),
    Break(
        "chat models: captions that answer prompts of their own share the first one's",
        READING,
        "if number == 1 or context.num_prompts > num_images:",
        "if number == 1:",
        (f"{SHARED}pictures_asked_something_of_their_own_are_read_once_and_captions_asked_so_each",),
    ),
    Break(
        "chat models: prompts of different length have the positions of the next picture's",
        READING,
        "positions.repeat_interleave(repeats, -2)",
        "positions.roll(1, -2).repeat_interleave(repeats, -2)",
        (f"{SHARED}pictures_asked_something_of_their_own_are_read_once_and_captions_asked_so_each",),
    ),
    Break(
        "chat models: no captions share a row",
        VLM,
        "if self.share_pictures:",
        "if False:",
        (
            *OF_A_ROW_EACH,
            "tests/benchmarks/test_benchmarks_chat_update.py::test_shared_pictures_take_fewer_operations_and_keep_less",
        ),
    ),
    Break(
        "chat models: rows are as long as there are captions, whatever they cost",
        SHARING,
        "row * (6 * width + row)",
        "row * (6 * width)",
        (f"{SHARED}so_many_captions_stand_in_a_row_that_operations_are_fewest",),
    ),
    Break(
        "recompute: layers run again under ZeRO-3, where their weights are gone",
        "capkit/train/captioner_module.py",
        "        if self.recompute:\n            raise",
        "        if False:\n            raise",
        ("tests/distributed/test_zero_refusals.py::test_zero_tells_what_it_cannot_do",),
    ),
]
