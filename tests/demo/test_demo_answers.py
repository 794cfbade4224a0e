import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from demo_server import png

from capkit.data.given_pictures import given_pictures
from capkit.data.images import BadImage
from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.demo.answers import OWN, Asked, Demo, Shown
from capkit.errors import UsageError
from capkit.models.captioners.word_attention import word_attention
from capkit.sceneworld.reading import SceneReader
from capkit.sceneworld.scorers import Facts
from capkit.scorers.base import BaseScorer
from capkit.scorers.clip_score import ClipScore
from capkit.scorers.question_answering import QuestionAnswering
from capkit.scorers.reward import RewardTerm
from capkit.scorers.text_rules import Length
from capkit.testing import models as tiny
from capkit.types import CaptionBatch, Samples


def of(answers, how):
    return next(one for one in answers[0].captions if one.how == how)


def test_captions_and_log_probabilities_are_those_of_the_api(captioner):
    loaded = captioner()
    answers = Demo([Shown("a", loaded)]).answer(png(), Asked(samples=2, temperature=0.7, text="a red star"))
    assert [one.how for one in answers[0].captions] == ["greedy", "beam of 5", "sample 1", "sample 2", "yours"]
    assert of(answers, "greedy").text == loaded.caption(png(), decoding=Decoding("greedy", max_length=12))
    for one in answers[0].captions:
        ((_, end),) = [loaded.score(png(), [one.text], per_token=True)[0][-1]]
        if one.end_nats is not None:  # else it was cut, and the API's score counts an end
            assert one.nats == pytest.approx(loaded.score(png(), [one.text])[0], abs=1e-4)
            assert one.end_nats == pytest.approx(end, abs=1e-4)


def test_any_token_that_ends_a_caption_is_its_end_and_no_word(captioner):
    loaded = captioner()
    star = loaded.model.tokenizer.convert_tokens_to_ids("star")
    loaded.model.other_ends = (star,)
    loaded.model._head.bias = torch.nn.Parameter(torch.zeros(loaded.model.vocab_size))
    loaded.model._head.bias.data[star] = 9.0
    greedy = of(Demo([Shown("a", loaded)]).answer(png(), Asked(samples=0, attention=False)), "greedy")
    assert greedy.words == [] and greedy.end_nats == pytest.approx(greedy.nats) != 0


def test_each_word_has_the_log_probability_of_its_tokens(captioner):
    loaded = captioner()
    answers = Demo([Shown("a", loaded)]).answer(png(), Asked(samples=0, text="a red star, left of"))
    tokens = loaded.score(png(), ["a red star, left of"], per_token=True)[0]
    words = [pair for pair in tokens if pair[0] not in (",", "<eos>") and pair[0].strip().isalpha()]
    shown = [(word.text, word.nats) for word in of(answers, "yours").words]
    assert [word for word, _ in shown] == ["a", "red", "star", "left", "of"]
    assert [nats for _, nats in shown] == pytest.approx([nats for _, nats in words][:5], abs=1e-4)


def test_where_it_looked_is_a_share_of_each_cell(captioner):
    answers = Demo([Shown("a", captioner())]).answer(png(), Asked(samples=0, text="a red star"))
    for word in of(answers, "yours").words:
        assert word.shares.shape == (4, 4) and word.shares.sum() == pytest.approx(1)
    assert answers[0].seen.shape == (32, 32, 3) and answers[0].seen.max() == 255 and not answers[0].note
    without = Demo([Shown("a", captioner())]).answer(png(), Asked(samples=0, attention=False))
    assert all(word.shares is None for one in without[0].captions for word in one.words)


def test_each_sample_looked_where_its_own_words_were_written(captioner):
    """Against word_attention on the sample's own ids, one caption at a time."""
    loaded = captioner()
    answers = Demo([Shown("a", loaded)]).answer(png(), Asked(samples=3, seed=5))
    (given,) = given_pictures(png())
    pixels = given.read()
    batch = CaptionBatch([given.key(pixels)], pixels=loaded.preprocess([pixels]))
    looks = []
    with torch.inference_mode():
        context = loaded.model.encode(batch)
        samples = loaded.model.generate(context, Decoding("sample", seed=5, max_length=12), 3)
        for number in range(3):
            alone = Samples([[samples.texts[0][number]]], samples.tokens[:, number : number + 1])
            alone = replace(alone, mask=samples.mask[:, number : number + 1])
            looks.append(word_attention(loaded.model, context, alone)[0])
    assert len({one.shares.tobytes() for one in looks}) == 3, "else this would not tell them apart"
    for number, look in enumerate(looks, 1):
        words = of(answers, f"sample {number}").words
        assert [word.text for word in words] == look.words
        assert np.allclose([word.shares for word in words], look.shares, atol=1e-6)


def test_written_captions_begin_with_the_words_that_are_given(captioner):
    loaded = captioner()
    asked = Asked(samples=2, text="one star", prompt="a red circle")
    answers = Demo([Shown("a", loaded)]).answer(png(), asked)
    texts = {one.how: one.text for one in answers[0].captions}
    assert texts.pop("yours") == "one star" and len(texts) == 4
    assert all(text.startswith("a red circle") for text in texts.values())
    plain = Decoding("greedy", max_length=12, prompt="a red circle")
    assert texts["greedy"] == loaded.caption(png(), decoding=plain)


@pytest.mark.parametrize(
    ("own", "is_shown"),
    [
        (Decoding(max_length=12), False),
        (Decoding("beam", num_beams=5, max_length=12), False),
        (Decoding("beam", num_beams=3, length_penalty=0.5, max_length=12), True),
        (Decoding(max_length=12, guide=Guide(2.0)), True),
        (Decoding("sample", top_k=2, max_length=9, prompt="a"), True),
    ],
    ids=["greedy", "the beam", "another beam", "guided", "sampled"],
)
def test_a_decoding_of_its_own_is_shown_beside_the_usual_ways(captioner, own, is_shown):
    loaded = captioner()
    loaded.decoding = own
    loaded._checkpoint = {"capkit": {"config": {"objective": {"image_dropout": 0.5}}}}
    answers = Demo([Shown("a", loaded)]).answer(png(), Asked(samples=1))
    hows = [one.how for one in answers[0].captions]
    assert hows == ["greedy", "beam of 5", *[OWN] * is_shown, "sample"]
    if is_shown:
        assert of(answers, OWN).text == loaded.caption(png())


def test_a_captioner_without_attention_says_so_and_captions_all_the_same(captioner):
    answers = Demo([Shown("a", captioner(attends=False))]).answer(png(), Asked(samples=1, text="a red star"))
    assert "ClipPrefix" in answers[0].note and of(answers, "yours").words[0].shares is None


def test_two_captioners_answer_beside_each_other(captioner):
    both = [Shown("a", captioner()), Shown("b", captioner(attends=False))]
    first, second = Demo(both).answer(png(), Asked(samples=0))
    assert (first.name, second.name) == ("a", "b")
    assert [one.how for one in first.captions] == [one.how for one in second.captions]


def test_samples_depend_on_picture_and_seed_alone(captioner):
    demo = Demo([Shown("a", captioner())])

    def texts(picture, seed):
        return [one.text for one in demo.answer(picture, Asked(samples=4, seed=seed))[0].captions[2:]]

    first = texts(png(), 0)
    assert texts(png(1), 0) != first != texts(png(), 1)
    assert texts(png(), 0) == first


class Brightness(BaseScorer):
    """Mean of the picture; NaN for captions of one word."""

    def attach_images(self, read):
        self.read = read

    def __call__(self, batch, samples):
        values = [float(self.read(key).mean()) for key in batch.keys]
        rows = [
            [value if " " in text else math.nan for text in texts]
            for value, texts in zip(values, samples.texts, strict=True)
        ]
        return torch.tensor(rows)


def test_scorers_see_the_picture_and_each_caption(captioner):
    brightness = Brightness()
    terms = {"length": RewardTerm(Length(1, 2, 1)), "brightness": RewardTerm(brightness), "off": None}
    demo = Demo([Shown("a", captioner())], terms)
    before = brightness.read
    yours = of(demo.answer(png(), Asked(samples=0, text="a red")), "yours")
    assert yours.scores["length"] == 1 and 120 < yours.scores["brightness"] < 135
    assert set(yours.scores) == {"length", "brightness"}
    assert of(demo.answer(png(), Asked(samples=0, text="star")), "yours").scores["brightness"] is None
    assert brightness.read == before and before("any") is None  # nothing is kept


def test_what_scorers_made_of_a_picture_is_forgotten_with_it(captioner):
    scorer = ClipScore(tiny.two_tower().eval())
    demo = Demo([Shown("a", captioner())], {"clip_score": RewardTerm(scorer)})
    assert all(one.scores["clip_score"] is not None for one in demo.answer(png(), Asked(samples=0))[0].captions)
    assert not scorer.images._rows


def test_what_cannot_score_a_dropped_picture_is_told_before_one_is_dropped(captioner, tmp_path):
    (tmp_path / "q.json").write_text(
        json.dumps({"7": [{"question": "what?", "choices": ["red", "blue"], "answer": "red"}]})
    )

    def demo(scorer):
        return Demo([Shown("a", captioner())], {"mine": RewardTerm(scorer)})

    with pytest.raises(UsageError, match="need metadata 'scene'"):
        demo(Facts("precision")).rehearse()
    with pytest.raises(UsageError, match="got none about any of 1 "):
        demo(QuestionAnswering(reader=SceneReader(), questions=str(tmp_path / "q.json")))
    demo(Length(1, 2, 1)).rehearse()


def test_a_scorer_that_needs_more_than_the_picture_is_refused(captioner):
    class Compares(BaseScorer):
        communicates = True

    class Refers(BaseScorer):
        needs_references = True

    for scorer, lacks in ((Compares, "other captions"), (Refers, "references")):
        scorer.__abstractmethods__ = frozenset()
        with pytest.raises(UsageError, match=f"reward.mine: .* needs {lacks}"):
            Demo([Shown("a", captioner())], {"mine": RewardTerm(scorer())})


def test_words_that_the_captioner_does_not_know_are_counted(captioner):
    yours = of(Demo([Shown("a", captioner())]).answer(png(), Asked(samples=0, text="a red zebra")), "yours")
    assert yours.num_unknown == 1 and [word.text for word in yours.words] == ["a", "red"]
    assert of(Demo([Shown("a", captioner())]).answer(png(), Asked(samples=0, text="a red")), "yours").num_unknown == 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"samples": 9}, "from 0 to 8"),
        ({"temperature": 0.0}, "from 0.01 to 10"),
        ({"temperature": math.nan}, "from 0.01 to 10"),
        ({"temperature": 1e-45}, "from 0.01 to 10"),  # its samples were empty
        ({"seed": -1}, "at least 0"),
        ({"text": "a" * 501}, "at most 500 characters"),
    ],
)
def test_settings_out_of_range_are_refused(asked, told):
    with pytest.raises(UsageError, match=told):
        Asked(**asked)


def test_a_caption_beyond_the_positions_and_bytes_that_are_no_picture_are_refused(captioner):
    demo = Demo([Shown("a", captioner())])
    with pytest.raises(UsageError, match="at most 24 tokens"):
        demo.answer(png(), Asked(samples=0, text="a red " * 20))
    with pytest.raises(BadImage):
        demo.answer(b"/etc/passwd", Asked())
