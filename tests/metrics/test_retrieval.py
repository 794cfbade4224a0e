import jaxtyping
import pytest
import torch

from capkit.errors import UsageError
from capkit.metrics.ranking import normalize
from capkit.metrics.retrieval import RandomDistractors, Retrieval, distractor_pools, retrieval, retrieval_report
from capkit.testing.distributed import run_distributed
from capkit.utils.rng import stable_hash


class StoredJudge:
    """Embeddings are given; only what a number is quoted with is asked of it."""

    name, prompt, max_length = "stored", "a photo of", 77

    def preprocess(self, images):
        raise AssertionError("not asked for")

    encode_image = encode_text = preprocess

    def is_cut(self, texts):
        return [len(text) > 20 for text in texts]

    def to(self, device):
        return self


def _random(n, m, width=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(n, width, generator=random)
    owner = torch.arange(m) % n
    return images, images[owner] + 1.2 * torch.randn(m, width, generator=random), owner


def naive_retrieval(images, texts, owner, at):
    similarity = normalize(texts).double() @ normalize(images).double().T
    numbers = {}
    t2i = [1 + int((row > row[own]).sum()) for row, own in zip(similarity, owner.tolist(), strict=True)]
    i2t = []
    for image in range(len(images)):
        order = similarity[:, image].argsort(descending=True)
        i2t.append(next(place for place, text in enumerate(order.tolist(), 1) if owner[text] == image))
    for way, ranks in (("t2i", t2i), ("i2t", i2t)):
        numbers |= {f"{way}_r{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in at}
        numbers[f"{way}_median_rank"] = torch.tensor(ranks).double().quantile(0.5).item()
    return numbers


@pytest.mark.parametrize("n, per_image", [(1, 1), (12, 1), (15, 5), (31, 2)])
def test_both_directions_equal_the_naive_ranking(n, per_image):
    images, texts, owner = _random(n, n * per_image)
    assert retrieval(images, texts, owner, (1, 5)) == pytest.approx(naive_retrieval(images, texts, owner, (1, 5)))


def test_a_picture_with_five_captions_is_found_if_any_of_them_is():
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]])
    owner = torch.tensor([0, 0, 0, 0, 0, 1])
    numbers = retrieval(images, texts, owner, (1,))
    assert numbers["i2t_r1"] == 1  # image 0 finds its first caption, image 1 its only one
    assert numbers["t2i_r1"] == pytest.approx(2 / 6)  # four captions of image 0 lie nearer to image 1


def test_oracle_captions_score_one_and_a_constant_caption_chance():
    images = torch.eye(10)
    owner = torch.arange(10)
    oracle = retrieval(images, images, owner, (1, 5))
    assert oracle["t2i_r1"] == oracle["i2t_r1"] == oracle["t2i_r5"] == 1
    assert oracle["t2i_median_rank"] == 1
    constant = retrieval(images, torch.ones(10, 10), owner, (1, 5))
    assert constant["t2i_r1"] == constant["i2t_r1"] == pytest.approx(0.1)
    assert constant["t2i_r5"] == pytest.approx(0.5)
    assert constant["i2t_median_rank"] == pytest.approx(5.5)


def test_a_constant_caption_scores_chance_also_where_images_differ():
    images, _, owner = _random(40, 40)
    assert retrieval(images, torch.ones(40, 6), owner, (1,))["t2i_r1"] == pytest.approx(1 / 40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.ones(3, 4).numpy()}, r"images: expected a tensor \(rows, width\), got ndarray"),
        ({"images": torch.ones(4)}, r"images: expected .*got a tensor of shape \(4,\)"),
        ({"texts": torch.ones(0, 4)}, r"texts: expected .*got a tensor of shape \(0, 4\)"),
        ({"texts": torch.ones(5, 6)}, "embeddings of one width, got {'images': 4, 'texts': 6}"),
        ({"owner": [0, 0, 1, 2, 2]}, "owner: expected a tensor of 5 whole numbers.*got list"),
        ({"owner": torch.tensor([0, 1, 2])}, r"owner: .*got torch.int64 of shape \(3,\)"),
        ({"owner": torch.tensor([0.0, 0, 1, 2, 2])}, "owner: .*got torch.float32"),
        ({"owner": torch.tensor([0, 0, 1, 2, 7])}, "expected a right candidate"),
    ],
)
def test_other_shapes_are_a_usage_error(changes, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users call it
    arguments = {"images": torch.ones(3, 4), "texts": torch.ones(5, 4), "owner": torch.tensor([0, 0, 1, 2, 2])}
    with pytest.raises(UsageError, match=message):
        retrieval(**{**arguments, **changes})


def test_order_of_rows_changes_nothing():
    images, texts, owner = _random(14, 42)
    numbers = retrieval(images, texts, owner)
    shuffle_images, shuffle_texts = torch.randperm(14), torch.randperm(42)
    place = shuffle_images.argsort()
    assert retrieval(images[shuffle_images], texts[shuffle_texts], place[owner[shuffle_texts]]) == pytest.approx(
        numbers
    )


def test_report_carries_pool_scorer_prompt_and_truncation():
    report = retrieval_report(*_random(6, 12), StoredJudge(), at=(1,)).to_dict()
    assert report["num_images"], report["num_captions"] == (6, 12)
    assert (report["scorer"], report["prompt"], report["max_length"]) == ("stored", "a photo of", 77)
    assert set(report["t2i"]) == set(report["i2t"]) == {"r1", "median_rank"}


def test_distractors_are_distinct_others_and_belong_to_the_image():
    ids = torch.tensor([stable_hash(i) for i in range(40)])
    pools = distractor_pools(ids, 12, seed=3)
    assert pools.shape == (40, 13)
    assert pools[:, 0].tolist() == list(range(40))
    assert all(len(set(pool)) == 13 and set(pool) <= set(range(40)) for pool in pools.tolist())
    assert torch.equal(pools, distractor_pools(ids, 12, seed=3))
    assert not torch.equal(pools, distractor_pools(ids, 12, seed=4))


def test_all_others_are_drawn_evenly():
    ids = torch.tensor([stable_hash("even", i) for i in range(3000)])
    drawn = distractor_pools(ids, 5, seed=0)[:, 1:]
    thirds = torch.histc(drawn.double(), bins=3, min=0, max=3000)
    assert (thirds / thirds.sum() - 1 / 3).abs().max() < 0.02  # 15,000 draws: standard deviation .004


def test_every_other_image_is_a_distractor_where_all_are_asked_for():
    pools = distractor_pools(torch.tensor([5, 9, 11, 70]), 3, seed=0)
    assert [sorted(pool) for pool in pools.tolist()] == [[0, 1, 2, 3]] * 4


def test_too_few_images_for_rd100_is_an_error_that_says_so():
    metric = RandomDistractors(StoredJudge())
    _add(metric, *_random(5, 5))
    with pytest.raises(UsageError, match="100 images or more; got 5"):
        metric.compute()


def _add(metric, images, texts, owner, rows=None):
    rows = range(len(texts)) if rows is None else rows
    rows = list(rows)
    keys, captions = [f"image {owner[i]}" for i in rows], [f"caption {i}" for i in rows]
    metric.update_embeddings(images[owner[rows]], texts[rows], keys, captions)


def test_metric_equals_the_function_whatever_the_batches():
    images, texts, owner = _random(11, 33)
    whole, batches = Retrieval(StoredJudge()), Retrieval(StoredJudge())
    _add(whole, images, texts, owner)
    for start in range(0, 33, 7):  # 7 7 7 7 5
        _add(batches, images, texts, owner, range(start, min(start + 7, 33)))
    _add(batches, images, texts, owner, [32, 0])  # a sampler that fills its last batch with rows seen before
    assert whole.compute() == pytest.approx(batches.compute())
    for name, value in retrieval(images, texts, owner).items():
        assert whole.compute()[f"retrieval_{name}"] == pytest.approx(value)
    assert whole.compute()["retrieval_pool"] == 11
    assert whole.provenance() == {"scorer": "stored", "prompt": "a photo of", "max_length": 77}


def test_random_distractors_equal_the_naive_pools():
    images, texts, owner = _random(30, 60)
    metric = RandomDistractors(StoredJudge(), num_distractors=9, num_seeds=2)
    _add(metric, images, texts, owner)
    ids = torch.tensor([stable_hash(f"image {i}") for i in range(30)])
    order = ids.argsort()
    recalls = []
    for seed in range(2):
        pools = order[distractor_pools(ids[order], 9, seed)]
        pool_of = {int(pool[0]): pool for pool in pools}
        cosines = [
            normalize(images)[pool_of[int(own)]] @ normalize(text[None])[0]
            for own, text in zip(owner, texts, strict=True)
        ]
        recalls.append(sum(float(row[0] >= row.max()) for row in cosines) / 60)
    assert metric.compute()["rd100_r1"] == pytest.approx(sum(recalls) / 2)
    assert metric.provenance()["candidates"] == 10


def test_a_larger_pool_is_harder():
    images, texts, owner = _random(200, 200)
    numbers = []
    for distractors in (9, 99, 199):
        metric = RandomDistractors(StoredJudge(), num_distractors=distractors, num_seeds=2)
        _add(metric, images, texts, owner)
        numbers.append(metric.compute()["rd100_r1"])
    assert numbers[0] > numbers[1] > numbers[2]
    assert numbers[2] == pytest.approx(retrieval(images, texts, owner, (1,))["t2i_r1"])


def test_rows_added_after_compute_count():
    images, texts, owner = _random(6, 12)
    metric = Retrieval(StoredJudge())
    _add(metric, images, texts, owner, range(10))
    metric.compute()
    _add(metric, images, texts, owner, range(10, 12))
    assert metric.compute()["retrieval_t2i_r1"] == pytest.approx(retrieval(images, texts, owner)["t2i_r1"])


_SPLITS = [(range(0, 33, 2), range(1, 33, 2)), (range(33), range(0)), (range(30), range(20, 33))]


def _on_rank():
    import torch.distributed as dist

    images, texts, owner = _random(11, 33)
    results = []
    for split in _SPLITS:
        metric = Retrieval(StoredJudge()), RandomDistractors(StoredJudge(), num_distractors=4)
        rows = split[dist.get_rank()]
        for one in metric:
            for start in range(0, len(rows), 4):
                _add(one, images, texts, owner, rows[start : start + 4])
            results.append(one.compute())
    return results


@pytest.mark.integration
def test_two_processes_equal_one_with_ragged_empty_and_repeated_shares():
    images, texts, owner = _random(11, 33)
    alone = [Retrieval(StoredJudge()), RandomDistractors(StoredJudge(), num_distractors=4)]
    for metric in alone:
        _add(metric, images, texts, owner)
    for results in run_distributed(_on_rank, 2):
        assert results == [pytest.approx(metric.compute()) for metric in alone * len(_SPLITS)]
