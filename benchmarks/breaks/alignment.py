"""Breaks in alignment levels."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "a score on an edge falls into the bin below",
        "capkit/data/alignment_bins.py",
        'side="right"',
        'side="left"',
        ("tests/data/test_alignment_bins.py",),
    ),
    Break(
        "all edges cut, not only the inner ones",
        "capkit/data/alignment_bins.py",
        "np.asarray(edges)[1:-1]",
        "np.asarray(edges)",
        ("tests/data/test_alignment_bins.py",),
    ),
    Break(
        "scores are left out of the fingerprint",
        "capkit/data/fingerprint.py",
        "fields.append(caption.score)",
        "pass",
        ("tests/data/test_fingerprint.py", "tests/data/test_alignment_bins.py"),
    ),
    Break(
        "edges of another corpus are taken",
        "capkit/data/datamodule.py",
        "                reader.check(self._corpus)",
        "                pass",
        ("tests/data/conditions/test_bins.py",),
    ),
    Break(
        "the filter keeps captions below the score of an image that has a better one",
        "capkit/data/sources/above_score.py",
        "caption.score >= self._min_score",
        "caption.score >= -1e9",
        ("tests/data/sources/test_above_score.py",),
    ),
    Break(
        "the filter takes pictures of the wrong records",
        "capkit/data/sources/above_score.py",
        "return self._source.image(int(self._kept[index]))",
        "return self._source.image(index)",
        ("tests/data/sources/test_above_score.py",),
    ),
    Break(
        "losses are not weighted",
        "capkit/objectives/cross_entropy.py",
        "losses = losses * _weights(batch)[..., None]",
        "losses = losses * 1",
        ("tests/objectives/test_cross_entropy.py",),
    ),
    Break(
        "a negative score turns a loss around",
        "capkit/objectives/cross_entropy.py",
        "nan_to_num(0.0).clamp(min=0)",
        "nan_to_num(0.0)",
        ("tests/objectives/test_cross_entropy.py",),
    ),
    Break(
        "a batch that a kill cut off is taken as scored",
        "capkit/curation/scores.py",
        "            whole -= whole % self._batch_size",
        "            pass",
        ("tests/tasks/test_align_task.py",),
    ),
    Break(
        "an unscored caption counts as the lowest score",
        "capkit/data/conditions/bins.py",
        "return None if target.caption.score is None else float(self.bins(target.caption.score))",
        "return float(self.bins(target.caption.score or 0.0))",
        ("tests/data/conditions/test_bins.py",),
    ),
    Break(
        "the class token is averaged with the patches",
        "capkit/models/encoders/image.py",
        "return torch.cat([front, grid_tokens(nn.functional.avg_pool2d(cells, size))], dim=1)",
        "return grid_tokens(nn.functional.avg_pool2d(cells, size))",
        ("tests/models/encoders/test_image_encoders.py::test_pooled_tokens_by_hand",),
    ),
    Break(
        "the error is drawn by place in the batch, not by key",
        "capkit/sceneworld/scorers.py",
        'generator(self.seed, "score", key, text).normal()',
        'generator(self.seed, "score", text).normal()',
        ("tests/sceneworld/test_noisy_facts.py",),
    ),
]
