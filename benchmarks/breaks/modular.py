"""Breaks in region features and modular captioners."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "regions: padding is attended",
        "capkit/models/captioners/encoder_decoder.py",
        "context = Context(self._projected(tokens, mask), mask, list(batch.keys))",
        "context = Context(self._projected(tokens, mask), None, list(batch.keys))",
        ("tests/models/captioners/test_regions.py",),
    ),
    Break(
        "regions: the mean counts padding",
        "capkit/models/captioners/clip_prefix.py",
        "pooled = features.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True)",
        "pooled = features.masked_fill(~mask[..., None], 0.0).mean(1)",
        ("tests/models/captioners/test_regions.py",),
    ),
    Break(
        "regions: rows that did not reach the disk are trusted",
        "capkit/data/region_files.py",
        "                    written[row] = 0\n",
        "                    pass\n",
        ("tests/data/test_region_files.py",),
    ),
    Break(
        "regions: an image begins where the last one began",
        "capkit/data/features.py",
        "return slice(int(self._ends[row - 1]) if row else 0, int(self._ends[row]))",
        "return slice(int(self._ends[row - 2]) if row > 1 else 0, int(self._ends[row]))",
        ("tests/data/test_region_files.py",),
    ),
    Break(
        "modular: attention is masked after its softmax",
        "capkit/models/captioners/module_blocks.py",
        "scores = scores.masked_fill(~mask[:, None], -torch.inf)\n        return scores.softmax(-1)",
        "return scores.softmax(-1).masked_fill(~mask[:, None], 0.0)\n        return scores.softmax(-1)",
        ("tests/models/captioners/test_modular_captioner.py",),
    ),
    Break(
        "modular: the relation's output never reaches the controller",
        "capkit/models/captioners/module_blocks.py",
        "visual = torch.cat([outputs[name] for name in VISUAL], -1)",
        'visual = torch.cat([outputs[name] for name in ("object", "object", "attribute")], -1)',
        ("tests/models/captioners/test_every_captioner.py", "tests/models/captioners/test_modular_captioner.py"),
    ),
    Break(
        "modular: states do not follow beams",
        "capkit/models/captioners/recurrent_cache.py",
        "self.states = [state.index_select(0, beam_idx.to(state.device)) for state in self.states]",
        "self.states = list(self.states)",
        ("tests/models/captioners/test_modular_captioner.py",),
    ),
    Break(
        "modular: the history forgets its zeros",
        "capkit/models/captioners/module_controllers.py",
        "return [like.new_zeros((rows, 1, self.embeddings.shape[1]))]",
        "return [like.new_ones((rows, 1, self.embeddings.shape[1]))]",
        ("tests/models/captioners/test_modular_captioner.py",),
    ),
    Break(
        "modular likelihood: the weight of the word before",
        "capkit/objectives/modular.py",
        "return batch.word_classes[..., 1:].clamp(min=0)",
        "return batch.word_classes[..., :-1].clamp(min=0)",
        ("tests/objectives/test_modular_likelihood.py",),
    ),
    Break(
        "modular likelihood: the last block alone, whatever is said",
        "capkit/objectives/modular.py",
        'surprise = surprise[..., -1] if self.blocks == "last" else surprise.mean(-1)',
        "surprise = surprise[..., -1]",
        ("tests/objectives/test_modular_likelihood.py",),
    ),
    Break(
        "modular likelihood: padding counts",
        "capkit/objectives/modular.py",
        "self._at(self.weight, step) * (surprise * mask).sum()",
        "self._at(self.weight, step) * surprise.sum()",
        ("tests/objectives/test_modular_likelihood.py",),
    ),
    Break(
        "word classes: a token of no letter is a function",
        "capkit/text/word_classes.py",
        "placed = list(zip([0, *ends], ends, classes, strict=False))",
        "placed = [(*word.span(), number) for word, number in zip(found, classes, strict=True)]",
        ("tests/text/test_word_classes.py",),
    ),
    Break(
        "word classes: the prompt is not counted",
        "capkit/text/word_classes.py",
        "return ([NO_CLASS] * num_given + of_tokens + [FUNCTION])[: encode.max_length]",
        "return ([NO_CLASS] + of_tokens + [FUNCTION])[: encode.max_length]",
        ("tests/text/test_word_classes.py",),
    ),
]
