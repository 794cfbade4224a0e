"""Breaks in No Detail Left Behind: bags, curriculum, retrieval pools, pair benchmarks."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "the running mean is never updated",
        "capkit/objectives/policy/advantages.py",
        "            self.value = before + (mean - before) / (self.count + 1)",
        "            self.value = before",
        ("tests/objectives/policy/test_advantages.py::test_running_mean_by_hand",),
    ),
    Break(
        "the running mean weighs batches as if none had come before",
        "capkit/objectives/policy/advantages.py",
        "        self.count += 1",
        "        self.count += 0",
        ("tests/objectives/policy/test_advantages.py::test_running_mean_by_hand",),
    ),
    Break(
        "hard bags are random groups",
        "capkit/curation/mining/grouping.py",
        '    if neighborhood == "random":',
        '    if neighborhood in ("random", "hard"):',
        ("tests/curation/mining/test_grouping.py",),
    ),
    Break(
        "hard bags take the farthest neighbours first",
        "capkit/curation/mining/grouping.py",
        "        mates = candidates[first]",
        "        mates = candidates[first][::-1]",
        ("tests/curation/mining/test_grouping.py",),
    ),
    Break(
        "the curriculum runs from large bags to small ones",
        "capkit/data/curricula/stages.py",
        "    bounds, lists = [bound for bound, _ in ordered], [name for _, name in ordered]",
        "    bounds, lists = [bound for bound, _ in ordered], [name for _, name in reversed(ordered)]",
        ("tests/data/curricula/test_stages.py",),
    ),
    Break(
        "a stage's bound is inclusive: each bag size stays an epoch too long",
        "capkit/data/curricula/stages.py",
        '        stage = bisect_right(self._bounds, len(self._epochs) if self._by == "epoch" else start)',
        '        stage = bisect_right(self._bounds, len(self._epochs) - 1 if self._by == "epoch" else start - 1)',
        ("tests/data/curricula/test_stages.py",),
    ),
    Break(
        "the retrieval pool has one distractor too few",
        "capkit/metrics/retrieval.py",
        "    return torch.cat([own[:, None], chosen + (chosen >= own[:, None]).long()], dim=1)",
        "    return torch.cat([own[:, None], chosen[:, 1:] + (chosen[:, 1:] >= own[:, None]).long()], dim=1)",
        ("tests/metrics/test_retrieval.py",),
    ),
    Break(
        "the own picture may be drawn as its distractor",
        "capkit/metrics/retrieval.py",
        "    return torch.cat([own[:, None], chosen + (chosen >= own[:, None]).long()], dim=1)",
        "    return torch.cat([own[:, None], chosen + (chosen > own[:, None]).long()], dim=1)",
        ("tests/metrics/test_retrieval.py",),
    ),
    Break(
        "a bag's pool leaves its last image out",
        "capkit/metrics/bags.py",
        "[target, *(row for row in bag if row != target)]",
        "[target, *(row for row in bag[:-1] if row != target)]",
        ("tests/metrics/test_bags.py",),
    ),
    Break(
        "the CLIP score of a bag size is of all captions, whatever their bags",
        "capkit/metrics/bags.py",
        "            cosines = bag_cosines(pairs.images, pairs.texts, pairs.owner, by_size[size])",
        "            cosines = (pairs.texts * pairs.images[pairs.owner]).sum(-1)",
        ("tests/metrics/test_bags.py",),
    ),
    Break(
        "the group score is the mean of text and image score",
        "capkit/metrics/matched_pairs.py",
        '        return {name: float(getattr(self, name).double().mean()) for name in ("text", "image", "group")}',
        '        means = {name: float(getattr(self, name).double().mean()) for name in ("text", "im'
        'age")}\n        return means | {"group": (means["text"] + means["image"]) / 2}',
        ("tests/metrics/test_matched_pairs.py",),
    ),
    Break(
        "text and image score are exchanged",
        "capkit/metrics/matched_pairs.py",
        "    own, other_caption = similarity.diagonal(dim1=1, dim2=2), similarity.flip(2).diagonal(dim1=1, dim2=2)",
        "    similarity = similarity.mT\n    own, other_caption = similarity.diagonal(dim1=1, dim2=2"
        "), similarity.flip(2).diagonal(dim1=1, dim2=2)",
        ("tests/metrics/test_matched_pairs.py",),
    ),
    Break(
        "one right image of two is enough for the text score",
        "capkit/metrics/matched_pairs.py",
        "        text=(own - other_caption > TIE_TOLERANCE).all(1),",
        "        text=(own - other_caption > TIE_TOLERANCE).any(1),",
        ("tests/metrics/test_matched_pairs.py",),
    ),
    Break(
        "a tie counts as right",
        "capkit/metrics/matched_pairs.py",
        "        text=(own - other_caption > TIE_TOLERANCE).all(1),",
        "        text=(own - other_caption > -TIE_TOLERANCE).all(1),",
        ("tests/metrics/test_matched_pairs.py",),
    ),
    Break(
        "MMVP's second statement gets the first picture",
        "capkit/data/sources/mmvp.py",
        "        image = f\"MLLM_VLM Images/{file_name(self.kind, self.where, 'Type')}/{self.number}.jpg\"",
        "        image = f\"MLLM_VLM Images/{file_name(self.kind, self.where, 'Type')}/{(self.number + 1) // 2}.jpg\"",
        ("tests/data/sources/test_mmvp.py",),
    ),
    Break(
        "all five HolisticCaps come from one description",
        "capkit/curation/steps/holistic_caption.py",
        "(picture,), sample=sample) for sample in range(self._num_captions)]",
        "(picture,), sample=0) for _ in range(self._num_captions)]",
        ("tests/curation/steps/test_holistic_caption.py",),
    ),
    Break(
        "self-retrieval's pool has the pictures of the batch without the own one's hardest rival",
        "capkit/scorers/self_retrieval.py",
        "    return _of_own(logits, own) - logits.logsumexp(1)",
        "    return _of_own(logits, own) - logits.sort(dim=1).values[:, :-1].logsumexp(1)",
        ("tests/scorers/test_self_retrieval.py",),
    ),
    Break(
        "hard bags are random groups (effect)",
        "capkit/curation/mining/grouping.py",
        '    if neighborhood == "random":',
        '    if neighborhood in ("random", "hard"):',
        ("tests/effects/test_rl_self_retrieval.py::test_batches_of_look_alikes_raise_recall_among_look_alikes",),
    ),
]
