"""Breaks in alt-texts and synthetic captions fused."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "a prompt of exactly 256 tokens is cut",
        "capkit/curation/steps/fuse_alt_text.py",
        "if self._most is None or length(len(alt_text)) <= self._most:",
        "if self._most is None or length(len(alt_text)) < self._most:",
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_a_prompt_of_256_tokens_stays_whole_and_a_longer_one_loses_the_alt_texts_end",
        ),
    ),
    Break(
        "the alt-text's beginning is cut",
        "capkit/curation/steps/fuse_alt_text.py",
        "return self._prompt.fill(alt_text=alt_text[:end], synthetic=synthetic)",
        "return self._prompt.fill(alt_text=alt_text[len(alt_text) - end :], synthetic=synthetic)",
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_a_prompt_of_256_tokens_stays_whole_and_a_longer_one_loses_the_alt_texts_end",
        ),
    ),
    Break(
        "one word too few is kept",
        "capkit/curation/steps/fuse_alt_text.py",
        "return filled(ends[kept - 1])",
        "return filled(ends[max(kept - 2, 0)])",
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_a_prompt_of_256_tokens_stays_whole_and_a_longer_one_loses_the_alt_texts_end",
        ),
    ),
    Break(
        "alt-text and synthetic caption are swapped",
        "capkit/curation/steps/fuse_alt_text.py",
        "prompt = self.prompt_of(clean_text(alt_text.text), clean_text(synthetic.text))",
        "prompt = self.prompt_of(clean_text(synthetic.text), clean_text(alt_text.text))",
        ("tests/curation/steps/test_fuse_alt_text.py::test_two_captions_chosen_by_their_source_become_one",),
    ),
    Break(
        "sources match anywhere",
        "capkit/curation/base.py",
        'return source == name or source.startswith(f"{name}/")',
        "return name in source",
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_two_captions_chosen_by_their_source_become_one",
            "tests/curation/steps/test_fuse_alt_text.py::test_a_step_whose_sources_no_record_can_have_is_told_before_anything_is_asked",
        ),
    ),
    Break(
        "two records may have one source each",
        "capkit/curation/base.py",
        "return all(any(is_by(caption.source, name) for caption in record.captions) for name in names)",
        "return any(any(is_by(caption.source, name) for caption in record.captions) for name in names)",
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_a_step_whose_sources_no_record_can_have_is_told_before_anything_is_asked",
        ),
    ),
    Break(
        "the model's own count is not used",
        "capkit/curation/steps/fuse_alt_text.py",
        "return guessed_tokens if own is None else own",
        "return guessed_tokens",
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_a_prompt_of_256_tokens_stays_whole_and_a_longer_one_loses_the_alt_texts_end",
        ),
    ),
    Break(
        "the template is not counted for a server",
        "capkit/llm/huggingface.py",
        'return lambda question: len(count(question.text, add_special_tokens=False)["input_ids"]) + TOKENS_OF_TEMPLATE',
        'return lambda question: len(count(question.text, add_special_tokens=False)["input_ids"])',
        (
            "tests/curation/steps/test_fuse_alt_text.py::test_a_model_that_counts_nothing_gets_its_tokens_guessed_or_counted_by_a_tokenizer",
        ),
    ),
    Break(
        "a tenth of the rows",
        "capkit/data/sources/capsfusion.py",
        "return self._groups[-1].first + self._groups[-1].size if self._groups else 0",
        "return (self._groups[-1].first + self._groups[-1].size) // 10 if self._groups else 0",
        (
            "tests/data/sources/test_capsfusion_texts.py::test_every_row_of_the_json_is_read_and_the_misspelt_third_key_too",
        ),
    ),
    Break(
        "the misspelt key is not read",
        "capkit/data/sources/capsfusion.py",
        '"capsfuion_official")',
        '"capsfusion_oficial")',
        (
            "tests/data/sources/test_capsfusion_texts.py::test_every_row_of_the_json_is_read_and_the_misspelt_third_key_too",
        ),
    ),
    Break(
        "row groups start at 0",
        "capkit/data/sources/capsfusion.py",
        "first_of_file = first\n",
        "first_of_file = 0\n",
        (
            "tests/data/sources/test_capsfusion_texts.py::test_tables_are_read_in_order_over_files_and_row_groups_and_in_any_order",
        ),
    ),
    Break(
        "the last rows of a table are not written",
        "capkit/curation/capsfusion_files.py",
        "        if rows:\n            write()",
        "        if len(rows) >= _ROWS:\n            write()",
        ("tests/curation/steps/test_fuse_alt_text.py::test_what_is_written_as_released_is_read_again",),
    ),
    Break(
        "every name goes to the first object",
        "capkit/sceneworld/chat/naming.py",
        "if (noun.shape, noun.color) == (shape, said)]",
        "if noun.shape]",
        ("tests/sceneworld/test_naming.py",),
    ),
    Break(
        "a colour is carried over to the next noun",
        "capkit/sceneworld/chat/naming.py",
        "            color = None  # adjectives stand right before their noun",
        "            pass  # adjectives stand right before their noun",
        ("tests/sceneworld/test_naming.py",),
    ),
    Break(
        "plain prompts get the template",
        "capkit/llm/huggingface.py",
        'if self.kind == "seq2seq" or not self.chat:',
        'if self.kind == "seq2seq":',
        ("tests/llm/test_huggingface_chat.py::test_a_model_of_plain_prompts_reads_them_as_they_are",),
    ),
    Break(
        "FuseCap's second caption of a picture replaces the first",
        "capkit/data/sources/fusecap.py",
        'files.setdefault(file_name(row["image"], where, "image"), []).append(caption)',
        'files[file_name(row["image"], where, "image")] = [caption]',
        ("tests/data/sources/test_fusecap_captions.py::test_pictures_are_found_by_their_name_or_by_their_address",),
    ),
    Break(
        "texts without pictures are dropped",
        "capkit/tasks/curate.py",
        'accounts, cfg.data.get("pictures", True), pictures)',
        "accounts, True, pictures)",
        (
            "tests/experiments/test_curate_experiments.py::test_captions_without_pictures_are_curated_as_they_are_released",
        ),
    ),
    Break(
        "the writer leaves the names out",
        "capkit/sceneworld/chat/naming.py",
        "text = f\"{text[:end]} ({', '.join(found)}){text[end:]}\"",
        "text = text",
        ("tests/effects/test_capsfusion.py::test_names_are_recalled_as_from_alt_text",),
    ),
    Break(
        "the writer answers with the alt-text",
        "capkit/sceneworld/chat/naming.py",
        'return Answer(json.dumps({"caption": text}))',
        'return Answer(json.dumps({"caption": given["alt_text"]}))',
        ("tests/effects/test_capsfusion.py::test_captions_are_as_clean_as_from_synthetic_ones",),
    ),
    Break(
        "one text stands behind the other",
        "capkit/sceneworld/chat/naming.py",
        'return Answer(json.dumps({"caption": text}))',
        'return Answer(json.dumps({"caption": given["alt_text"] + " " + given["synthetic"]}))',
        ("tests/effects/test_capsfusion.py::test_fusing_is_no_concatenation",),
    ),
]
