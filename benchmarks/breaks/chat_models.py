"""Breaks in chat models as captioners."""

from benchmarks.breaks.planted import Break

MODELS = "capkit/models/captioners/"
ROWS, FAMILIES, TEMPLATE, VLM = (f"{MODELS}chat_{name}.py" for name in ("rows", "families", "template", "vlm"))
TESTS = "tests/models/captioners/test_chat_vlm.py::test_"
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
    Break("chat models: Qwen3-VL's deeper features dropped", VLM, "if not deeper:", "if True:", EQUALITY),
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
]
