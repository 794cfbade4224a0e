"""Breaks in the Portuguese of SceneWorld and of the stamps."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "native adjectives stand before the noun",
        "capkit/sceneworld/language/grammar.py",
        'return " ".join(words[::-1] if self.adjectives_follow else words)',
        'return " ".join(words)',
        ("tests/sceneworld/test_portuguese.py::test_captions_read_as_expected",),
    ),
    Break(
        "adjectives do not agree in gender",
        "capkit/sceneworld/language/grammar.py",
        "return self.adjectives[word][noun.is_feminine + 2 * (count > 1)]",
        "return self.adjectives[word][2 * (count > 1)]",
        (
            (
                "tests/sceneworld/test_portuguese.py::test_native_nouns_take_their_articles_adjectives_an"
                "d_numbers_in_agreement"
            ),
        ),
    ),
    Break(
        "adjectives do not agree in number",
        "capkit/sceneworld/language/grammar.py",
        "return self.adjectives[word][noun.is_feminine + 2 * (count > 1)]",
        "return self.adjectives[word][noun.is_feminine]",
        (
            (
                "tests/sceneworld/test_portuguese.py::test_native_nouns_take_their_articles_adjectives_an"
                "d_numbers_in_agreement"
            ),
        ),
    ),
    Break(
        "the parser reads adjectives on one side only",
        "capkit/sceneworld/language/portuguese.py",
        "        contractions=CONTRACTIONS,\n        adjectives_follow=True,",
        "        contractions=CONTRACTIONS,\n        adjectives_follow=False,",
        (
            "tests/sceneworld/test_portuguese.py::test_rules_by_hand",
            "tests/effects/test_language.py::test_facts_are_the_same_in_every_cell",
        ),
    ),
    Break(
        "a drawn contraction is taken apart",
        "capkit/sceneworld/language/parser.py",
        'word = self.shown[self.at] if self.at < len(self.words) else ""',
        'word = self.words[self.at] if self.at < len(self.words) else ""',
        ("tests/sceneworld/test_portuguese.py::test_rules_by_hand",),
    ),
    Break(
        "decomposed accents are not composed",
        "capkit/sceneworld/language/lexicon.py",
        '_TOKEN.findall(unicodedata.normalize("NFC", text).lower())',
        "_TOKEN.findall(text.lower())",
        ("tests/sceneworld/test_portuguese.py::test_rules_by_hand",),
    ),
    Break(
        "fact metrics read English whatever the record says",
        "capkit/sceneworld/metrics/facts.py",
        'scores.append(score_caption(scene, text, row["stated_facts"], language))',
        'scores.append(score_caption(scene, text, row["stated_facts"]))',
        ("tests/sceneworld/test_portuguese.py::test_fact_metrics_and_the_judge_read_the_language_of_the_record",),
    ),
    Break(
        "the dialect is ignored",
        "capkit/sceneworld/cache.py",
        "reference_captions(scene, self.style, self.detail, GRAMMARS[self.dialect])",
        'reference_captions(scene, self.style, self.detail, GRAMMARS[self.dialect and "native"])',
        (
            "tests/sceneworld/test_portuguese.py::test_a_dialect_changes_nothing_but_the_captions",
            "tests/effects/test_language.py::test_cider_is_higher_on_the_dialect_of_training",
        ),
    ),
    Break(
        "both dialects have one cache folder",
        "capkit/sceneworld/cache.py",
        "        if self.dialect is None:\n            del described",
        "        if True:\n            del described",
        ("tests/sceneworld/test_portuguese.py::test_fingerprints_and_caches_tell_dialects_apart",),
    ),
    Break(
        "the count of one is the article in the word table",
        "capkit/sceneworld/language/portuguese.py",
        '"one": "único"',
        '"one": "um"',
        (
            (
                "tests/sceneworld/test_portuguese.py::test_every_caption_parses_back_to_exactly_the_facts"
                "_of_the_english_one"
            ),
        ),
    ),
    Break(
        "mirror images keep esquerda",
        "capkit/sceneworld/language/mirroring.py",
        ', ("esquerda", "direita"), ("esquerdo", "direito"))',
        ",)",
        ("tests/sceneworld/test_portuguese.py::test_captions_of_the_mirror_image_state_its_facts",),
    ),
    Break(
        "no empty word stands behind a translation",
        "capkit/text/word_alignment.py",
        "sentences = [([EMPTY, *source], list(target)) for source, target in pairs]",
        "sentences = [(list(source), list(target)) for source, target in pairs]",
        (
            "tests/text/test_word_alignment.py::test_the_first_iteration_by_hand",
            "tests/text/test_word_alignment.py::test_equal_to_the_sum_over_every_alignment",
        ),
    ),
    Break(
        "counts are normalised over the words of the sentence, not of the translation",
        "capkit/text/word_alignment.py",
        "total = sum(found[e][f] for e in source)",
        "total = sum(found[e][g] for g in target for e in source)",
        ("tests/text/test_word_alignment.py::test_equal_to_the_sum_over_every_alignment",),
    ),
    Break(
        "the table learns from the pictures that it translates",
        "capkit/data/sources/word_for_word.py",
        "captions = self._training.record(index).captions",
        "captions = self._source.record(index).captions",
        ("tests/data/sources/test_word_for_word.py",),
    ),
]
