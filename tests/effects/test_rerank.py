"""A dual encoder picks among sampled captions the ones that say what their pictures show: read from the scenes.

The captioner leaves most colours out; what it samples names some of them, rightly or wrongly.
"""

from pathlib import Path

import pytest

from capkit.checkpoint.loading import load_captioner, load_dual_encoder
from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.decoding.config import Decoding
from capkit.sceneworld.metrics.facts import fact_scores
from capkit.scorers.as_reranker import Reranker
from capkit.scorers.clip_score import ClipScore
from capkit.train.build import encoder_of, picture_reader

NUM_IMAGES, NUM_CANDIDATES = 96, 8


@pytest.fixture(scope="module")
def f1(generic_captioner, judges, tmp_path_factory):
    """Fact F1 of greedy captions, of first samples, of reranked ones and of those reranked by other pictures."""
    words = ["evaluate", f"ckpt={generic_captioner}", f"data.eval_batch_size={NUM_IMAGES}"]
    config = compose_config(parse(words)).config
    model, _ = load_captioner(str(generic_captioner))
    data = build(config.data)
    data.attach(encode=encoder_of(model, data.max_length), run_dir=tmp_path_factory.mktemp("rerank"))
    data.prepare_data()
    data.setup("test")
    (batch,) = data.eval_dataloader("test", NUM_IMAGES)
    judge = load_dual_encoder(Path(judges[0].partition("=")[2]))
    read = picture_reader(data, ("test",))
    following = dict(zip(batch.keys, batch.keys[1:] + batch.keys[:1], strict=True))

    def reranked(look):
        reranker = Reranker(ClipScore(judge))
        reranker.prepare(look, list, "cpu")
        return reranker(batch, candidates)

    def of(samples, number=0):
        return fact_scores([texts[number] for texts in samples.texts], batch.metadata)["fact_f1"]

    candidates = model.generate(model.encode(batch), Decoding("sample"), NUM_CANDIDATES)
    return {
        "greedy": of(model.generate(model.encode(batch), Decoding())),
        "samples": sum(of(candidates, number) for number in range(NUM_CANDIDATES)) / NUM_CANDIDATES,
        "reranked": of(reranked(read)),
        "other pictures": of(reranked(lambda key: read(following[key]))),
    }


@pytest.mark.effect
def test_reranked_captions_say_more_that_is_true_than_greedy_ones_and_samples(f1):
    assert f1["reranked"] > f1["greedy"] + 0.05, f1
    assert f1["reranked"] > f1["samples"] + 0.05, f1


@pytest.mark.effect
def test_reranked_by_other_pictures_nothing_is_gained(f1):
    assert f1["other pictures"] < f1["samples"] + 0.05, f1
