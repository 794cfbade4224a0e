"""Breaks in dense captions, prompts and confidences."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "dense captioning: a target may be claimed twice",
        "capkit/metrics/dense_caption_map.py",
        "        taken.add(best)\n",
        "",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: boxes are ranked from the least sure",
        "capkit/metrics/dense_caption_map.py",
        "    claims.sort(key=lambda claim: -claim.prediction.confidence)",
        "    claims.sort(key=lambda claim: claim.prediction.confidence)",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: boxes claim targets in the order given",
        "capkit/metrics/dense_caption_map.py",
        "for row in sorted(range(len(predictions)), key=lambda row: -predictions[row].confidence):",
        "for row in range(len(predictions)):",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: targets on each other are not merged",
        "capkit/metrics/dense_caption_map.py",
        "pairs = [(boxes, merged(true)) for",
        "pairs = [(boxes, list(true)) for",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: a text's score may equal the threshold",
        "capkit/metrics/dense_caption_map.py",
        "(agreement > score)",
        "(agreement >= score)",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: the union is the sum of both areas",
        "capkit/metrics/dense_caption_map.py",
        "areas[0][:, None] + areas[1] - shared",
        "areas[0][:, None] + areas[1]",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: precision is not the best at a recall or above",
        "capkit/metrics/dense_caption_map.py",
        "np.maximum.accumulate(precision[::-1])[::-1]",
        "precision",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "dense captioning: empty images' targets are not counted",
        "capkit/metrics/dense_caption_map.py",
        "num_targets = sum(len(true) for _, true in pairs)",
        "num_targets = sum(len(true) for boxes, true in pairs if boxes)",
        ("tests/metrics/test_dense_caption_map.py",),
    ),
    Break(
        "a caption's confidence is a sum, so that short ones are surer",
        "capkit/train/captioner_module.py",
        "means = samples.logprobs.sum(-1) / samples.mask[..., 1:].sum(-1).clamp(min=1)",
        "means = samples.logprobs.sum(-1)",
        (
            (
                "tests/train/test_region_rows.py::test_a_rows_confidence_is_the_mean_logprob_of_its_capti"
                "on_and_stands_in_the_file"
            ),
        ),
    ),
    Break(
        "the words that a caption starts with are left out of its text",
        "capkit/decoding/generate.py",
        "texts = decode_captions(tokenizer, tokens, mask, prompt_length)",
        "texts = decode_captions(tokenizer, tokens, mask, len(start))",
        ("tests/decoding/test_generate.py",),
    ),
    Break(
        "the words that a caption starts with stand in front of the captioner's prompt",
        "capkit/decoding/generate.py",
        "return own + given_ids(tokenizer, decoding.prompt, captioner.prompt), len(own)",
        "return own[:1] + given_ids(tokenizer, decoding.prompt, captioner.prompt) + own[1:], len(own)",
        ("tests/decoding/test_generate.py",),
    ),
    Break(
        "fact F1 of texts counts shared facts once",
        "capkit/sceneworld/metrics/fact_agreement.py",
        "return 2 * shared / num_facts",
        "return shared / num_facts",
        ("tests/sceneworld/test_fact_agreement.py",),
    ),
    Break(
        "every length asked for is the same",
        "capkit/models/conditions/length.py",
        "return self.embedding(values.long())[:, None]",
        "return self.embedding(values.long() * 0 + 3)[:, None]",
        ("tests/effects/test_flexcap.py::test_captions_have_the_number_of_words_asked_for",),
    ),
]
