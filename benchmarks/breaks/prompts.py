"""Breaks in prompts of captions, and writers of text."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "padding is attended",
        "capkit/models/captioners/causal_lm.py",
        "allowed = allowed & ((places < start) | (places >= start + padding))",
        "allowed = allowed & (places >= 0)",
        (
            "tests/models/captioners/test_text_writer_model.py::test_logprobs_and_gradients_are_those_of_prompt_and_caption_one_by_one",
        ),
    ),
    Break(
        "padding has positions",
        "capkit/models/captioners/causal_lm.py",
        "found = found - torch.minimum(behind[None], padding)",
        "found = found - 0 * torch.minimum(behind[None], padding)",
        (
            "tests/models/captioners/test_text_writer_model.py::test_logprobs_and_gradients_are_those_of_prompt_and_caption_one_by_one",
        ),
    ),
    Break(
        "prompts dealt in the wrong order",
        "capkit/models/captioners/causal_lm.py",
        "return flat.repeat_interleave(num_rows // len(flat), 0)",
        "return flat.repeat(num_rows // len(flat), *[1] * (flat.ndim - 1))",
        ("tests/models/captioners/test_text_writer_model.py::test_samples_of_a_prompt_of_an_image_share_it",),
    ),
    Break(
        "BOS stays between prompt and caption",
        "capkit/models/captioners/causal_lm.py",
        "return torch.cat([of_rows(context.prompts, len(tokens)), tokens[:, 1:]], dim=1)",
        "return torch.cat([of_rows(context.prompts, len(tokens))[:, 1:], tokens], dim=1)",
        (
            "tests/models/captioners/test_text_writer_model.py::test_another_prompt_gives_another_caption_and_padding_none",
            "tests/models/captioners/test_text_writer_model.py::test_logprobs_and_gradients_are_those_of_prompt_and_caption_one_by_one",
        ),
    ),
    Break(
        "conditions are counted as prompts",
        "capkit/models/conditions/prefix.py",
        "num_rows, num_given = len(embeddings), len(given)",
        "num_rows, num_given = len(embeddings), context.num_prompts",
        ("tests/models/captioners/test_text_writer_model.py::test_samples_of_a_prompt_of_an_image_share_it",),
    ),
    Break(
        "guidance forgets the prompts of half of the rows",
        "capkit/decoding/guided.py",
        "prompts=None if prompts is None else prompts.repeat(2, 1, 1),",
        "prompts=None if prompts is None else prompts.roll(1, 2).repeat(2, 1, 1),",
        (
            "tests/models/captioners/test_text_writer_model.py::test_guidance_of_a_prefix_keeps_the_prompts_and_a_writer_has_none",
        ),
    ),
    Break(
        "prompts padded on the right",
        "capkit/text/prompt_encoder.py",
        "tokens[image, number, length - len(ids) :] = torch.tensor(ids)",
        "tokens[image, number, : len(ids)] = torch.tensor(ids)",
        ("tests/text/test_prompt_encoder.py::test_prompts_are_padded_on_the_left",),
    ),
    Break(
        "the template is cut with the message",
        "capkit/text/prompt_encoder.py",
        "ids = self._ids(prompt[: ends[kept - 1]])",
        "ids = self._ids(prompt)[: self.most]",
        ("tests/text/test_prompt_encoder.py::test_a_long_prompt_is_told_or_loses_its_end_and_nothing_of_the_template",),
    ),
    Break(
        "a checkpoint forgets the chat template",
        "capkit/text/tokenizers.py",
        'chat_template=data.get("chat_template"),',
        "chat_template=None,",
        ("tests/text/test_prompt_encoder.py::test_a_template_survives_a_checkpoint_and_a_data_worker",),
    ),
    Break(
        "all captions get the first one's prompt",
        "capkit/data/dataset.py",
        "return [self._encode_prompt(target.caption.prompt) for target in chosen]",
        "return [self._encode_prompt(chosen[0].caption.prompt) for target in chosen]",
        ("tests/data/test_prompted_batches.py::test_captions_come_with_their_prompts_and_without_pictures",),
    ),
    Break(
        "lines of an answer are joined",
        "capkit/data/targets.py",
        "(clean_text if caption.prompt is None else clean_lines)(caption.text)",
        "clean_text(caption.text)",
        ("tests/data/test_prompted_batches.py::test_captions_come_with_their_prompts_and_without_pictures",),
    ),
    Break(
        "refused replies are learned",
        "capkit/llm/asker.py",
        "            self.store.add(pending.key, said)\n            self._to_next_sample",
        "            self.store.add(pending.key, said, pending.question)\n            self._to_next_sample",
        (
            "tests/data/sources/test_answers.py::test_what_a_model_answered_is_read_from_its_store_and_what_was_refused_is_not",
        ),
    ),
    Break(
        "splits share prompts",
        "capkit/data/sources/answers.py",
        "key = digest(prompt.encode()).hex()",
        "key = digest(where.encode()).hex()",
        (
            "tests/data/sources/test_answers.py::test_splits_share_no_prompt_and_do_not_depend_on_the_order_of_the_lines",
        ),
    ),
    Break(
        "an encoder's padding is attended",
        "capkit/models/captioners/seq2seq_writer.py",
        "encoder_attention_mask=of_rows(context.mask.unflatten(1, shape), num_rows).long(),",
        "encoder_attention_mask=torch.ones_like(of_rows(context.mask.unflatten(1, shape), num_rows)).long(),",
        ("tests/models/captioners/test_seq2seq_writer.py::test_another_prompt_gives_another_answer_and_padding_none",),
    ),
    Break(
        "BOS in the place of the decoder's start",
        "capkit/models/captioners/seq2seq_writer.py",
        "ids = tokens if past else torch.cat([torch.full_like(tokens[:, :1], start), tokens[:, 1:]], 1)",
        "ids = tokens",
        (
            "tests/models/captioners/test_seq2seq_writer.py::test_logprobs_and_gradients_are_those_of_prompt_and_answer_one_by_one",
        ),
    ),
    Break(
        "T5's head reads what is not scaled",
        "capkit/models/captioners/seq2seq_writer.py",
        "return hidden * self.width**-0.5 if _scales(self.lm.config) else hidden",
        "return hidden",
        (
            "tests/models/captioners/test_seq2seq_writer.py::test_logprobs_and_gradients_are_those_of_prompt_and_answer_one_by_one",
        ),
    ),
    Break(
        "FLAN-T5's head is the embedding",
        "capkit/models/captioners/seq2seq_writer.py",
        "if not _scales(network.config) and network",
        "if _scales(network.config) and network",
        ("tests/models/captioners/test_seq2seq_writer.py::test_a_head_of_its_own_is_not_the_embedding",),
    ),
    Break(
        "guidance takes a text away",
        "capkit/models/captioners/seq2seq_writer.py",
        "mask=mask.flatten(1, 2), of_text=True)",
        "mask=mask.flatten(1, 2))",
        ("tests/models/captioners/test_seq2seq_writer.py::test_what_it_cannot_do_is_told",),
    ),
    Break(
        "an mT5 scales what its head reads, as T5 1.0 does",
        "capkit/models/captioners/seq2seq_writer.py",
        'config.model_type == "t5" and bool',
        "bool",
        (
            "tests/models/captioners/test_seq2seq_writer.py::test_logprobs_and_gradients_are_those_of_prompt_and_answer_one_by_one",
        ),
    ),
    Break(
        "a list of texts as a caption",
        "capkit/llm/replies.py",
        "isinstance(json.loads(text), list)",
        "False",
        ("tests/llm/test_replies.py",),
    ),
    Break(
        "an encoder reads a chat template",
        "capkit/text/prompt_encoder.py",
        "        if self.as_text:\n",
        "        if False:\n",
        ("tests/models/captioners/test_seq2seq_writer.py::test_a_prompt_is_read_as_it_is_and_not_by_a_chat_template",),
    ),
    Break(
        "JSON as a caption",
        "capkit/llm/replies.py",
        'if text.strip().startswith("{"):',
        'if text.strip().startswith("{{"):',
        ("tests/curation/steps/test_fuse_findings.py::test_a_reply_of_the_other_form_is_a_failure",),
    ),
    Break(
        "the exact fuser answers in JSON whatever is asked",
        "capkit/sceneworld/chat/fusing.py",
        'answer = caption_alone if "fused_caption" in given else caption_as_json',
        "answer = caption_as_json",
        ("tests/curation/steps/test_fuse_findings.py::test_the_bare_prompt_is_the_caption_and_the_findings_alone",),
    ),
    Break(
        "a model without braces is asked for JSON",
        "capkit/llm/huggingface.py",
        "return unknown is None or unknown not in",
        "return True or unknown not in",
        ("tests/llm/test_huggingface_chat.py::test_encoder_decoders_answer_without_a_chat_template",),
    ),
]
