"""Breaks in captioners and metrics of any language."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "pad = end: labels of the padding's id are left out of the loss's mask",
        "capkit/text/tokenizers.py",
        "            mask[image, k, : len(row)] = True",
        "            mask[image, k, : len(row)] = torch.tensor(row) != tokenizer.pad_token_id",
        ("tests/models/captioners/test_joined.py::test_the_end_has_a_label_where_it_is_also_the_padding",),
    ),
    Break(
        "special ids of the decoder's own config instead of the tokenizer's",
        "capkit/models/captioners/joined.py",
        "    set_special_ids(network, tokenizer)\n    return network",
        "    return network",
        ("tests/models/captioners/test_joined.py::test_networks_by_folder_keep_their_weights_and_bring_the_tokenizer",),
    ),
    Break(
        "DistilBERT's two layer norms exchanged",
        "capkit/models/captioners/distilbert.py",
        '(r"\\.sa_layer_norm\\.", ".attention.output.LayerNorm."),',
        '(r"\\.sa_layer_norm\\.", ".output.LayerNorm."),',
        (
            (
                "tests/models/captioners/test_joined.py::test_a_distilbert_and_its_weights_under_berts_na"
                "mes_give_equal_logits"
            ),
        ),
    ),
    Break(
        "DistilBERT's token type is random, as BERT makes it",
        "capkit/models/captioners/distilbert.py",
        "torch.zeros(1, width)",
        "torch.randn(1, width)",
        (
            (
                "tests/models/captioners/test_joined.py::test_a_distilbert_and_its_weights_under_berts_na"
                "mes_give_equal_logits"
            ),
        ),
    ),
    Break(
        "pretrained weights of a named encoder are not loaded",
        "capkit/models/captioners/joined.py",
        "    if name is None or not pretrained:",
        "    if name is not None or not pretrained:",
        ("tests/models/captioners/test_joined.py::test_networks_by_folder_keep_their_weights_and_bring_the_tokenizer",),
    ),
    Break(
        "an export of two named networks still names them",
        "capkit/checkpoint/exported.py",
        'node |= {"name": "", "encoder": None, "decoder": None}',
        "pass",
        ("tests/tasks/test_export.py::test_an_export_of_two_named_networks_needs_neither_of_them",),
    ),
    Break(
        "cleaning leaves captions decomposed",
        "capkit/text/caption_text.py",
        'return unicodedata.normalize("NFC", " ".join(_NOT_TEXT.sub(" ", text).split()))',
        'return " ".join(_NOT_TEXT.sub(" ", text).split())',
        ("tests/text/test_portuguese_texts.py",),
    ),
    Break(
        "the tokenizer of other languages does not compose",
        "capkit/text/normalize.py",
        '_lower(unicodedata.normalize("NFC", line), primary)',
        "_lower(line, primary)",
        ("tests/text/test_portuguese_texts.py",),
    ),
    Break(
        "an apostrophe cuts words (d'água)",
        "capkit/text/normalize.py",
        "(?:['\\u2019\\u00b7\\u2010\\u2011-][",
        "(?:[\\u00b7\\u2010\\u2011-][",
        ("tests/text/test_portuguese_texts.py",),
    ),
    Break(
        "METEOR reads Portuguese as English",
        "capkit/metrics/coco/meteor.py",
        "    process = _shared_process(check_language(language))",
        '    process = _shared_process("en")',
        ("tests/text/test_portuguese_texts.py::test_meteor_matches_portuguese_stems_and_both_forms_alike",),
    ),
    Break(
        "metric.language stops at the group",
        "capkit/config/shared_settings.py",
        "                group[name][_ARGUMENT] = value",
        "                pass",
        ("tests/config/test_languages.py",),
    ),
    Break(
        "a record keeps its captions in other languages",
        "capkit/data/sources/in_languages.py",
        "captions=[c for c in record.captions if c.language in self._languages]",
        "captions=record.captions",
        ("tests/data/sources/test_in_languages.py",),
    ),
    Break(
        "pictures of left-out images shift those behind them",
        "capkit/data/sources/in_languages.py",
        "        return self._source.image(int(self._places[index]))",
        "        return self._source.image(index)",
        ("tests/data/sources/test_in_languages.py",),
    ),
    Break(
        "a parquet row's picture is counted over the file, not within its row group (needs pyarrow)",
        "capkit/data/sources/parquet.py",
        "rows.append(_Row(CaptionRow(record, own), path, group, place))",
        "rows.append(_Row(CaptionRow(record, own), path, 0, place))",
        ("tests/data/sources/test_parquet.py::test_each_record_has_its_own_picture_in_any_order",),
    ),
]
