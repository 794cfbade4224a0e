"""A captioner as a model that describes and rates: what it says of its words, in any batch, and what it refuses."""

import shutil

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from benchmarks.starts import folder_of
from capkit.checkpoint.loading import load_captioner
from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Picture, Question
from capkit.llm.rated import RatedReply, can_rate
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene
from capkit.text.tokenizers import encode_captions
from capkit.train.rated_captioner import RatedCaptioner
from capkit.types import CaptionBatch

WORLD = WorldOptions(
    shapes=["circle", "square", "triangle", "cross"], sizes=["large"], backgrounds=["white", "black"],
    min_objects=2, max_objects=2, inside_probability=0.0,
)  # fmt: skip
DECODING = Decoding(max_length=16)
pytestmark = pytest.mark.filterwarnings("ignore:.*trained with every image")


@pytest.fixture(scope="module")
def start():
    return folder_of("generic", 0)


@pytest.fixture(scope="module")
def questions():
    scenes = [make_scene(WORLD, 0, "test", index) for index in range(6)]
    return [Question("Describe it.", (Picture(render(scene, 32)),)) for scene in scenes]


def read(answers):
    return [RatedReply(100).read(answer.text) for answer in answers]


def test_the_gains_are_those_of_the_words_that_it_wrote(start, questions):
    """Written anew in a batch of one by the captioner alone, and rated one softmax at a time."""
    model = RatedCaptioner(str(start), DECODING)
    assert isinstance(model, ChatModel) and can_rate(model)
    captioner, _ = load_captioner(str(start))
    for question, rated in zip(questions, read(model.ask(questions)), strict=True):
        words = [rated.text[first:last].strip() for first, last, _ in rated.tokens]
        assert words == rated.text.replace(",", " ,").replace(".", " .").split()
        pixels = (torch.from_numpy(question.pictures[0].pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        tokens, mask, _ = encode_captions(captioner.tokenizer, [[rated.text]], "", 30)
        with torch.no_grad():
            context = captioner.encode(CaptionBatch(["0"], pixels))
            rows = [captioner(c, tokens, mask)[0, 0].log_softmax(-1) for c in (context, context.without_image())]
        for place, (_, _, gain) in enumerate(rated.tokens):
            token = tokens[0, 0, place + 1]
            assert gain == pytest.approx((rows[0][place, token] - rows[1][place, token]).item(), abs=1e-4)


def test_answers_do_not_depend_on_the_batch(start, questions):
    whole = read(RatedCaptioner(str(start), DECODING).ask(questions))
    single = read(RatedCaptioner(str(start), DECODING, batch_size=1).ask(questions[::-1]))
    for rated, alone in zip(whole, single[::-1], strict=True):
        assert rated.text == alone.text
        assert np.array(rated.tokens) == pytest.approx(np.array(alone.tokens), abs=1e-4)


def test_a_sample_is_drawn_by_question_and_sample(start, questions):
    model = RatedCaptioner(str(start), Decoding(method="sample", max_length=16, temperature=2.0))
    asked = [Question("", questions[0].pictures, sample=sample) for sample in range(6)]
    said = [answer.text or answer.said for answer in model.ask(asked)]
    assert model.draws and len(set(said)) > 1
    assert said[::-1] == [answer.text or answer.said for answer in model.ask(asked[::-1])]


def test_a_caption_that_does_not_end_is_a_failure(start, questions):
    (answer,) = RatedCaptioner(str(start), Decoding(max_length=2)).ask(questions[:1])
    assert answer.text is None and "decoding.max_length=2" in answer.failure and len(answer.said.split()) == 2


def test_its_answers_are_kept(start, questions, tmp_path):
    first = Asker(RatedCaptioner(str(start), DECODING), tmp_path, RatedReply(100), pictures=True).ask(questions)
    again = Asker(RatedCaptioner(str(start), DECODING, batch_size=2), tmp_path, RatedReply(100), pictures=True)
    assert again.ask(questions) == first and again.counts["cached"] == 6
    other = Asker(RatedCaptioner(str(start), Decoding(max_length=15)), tmp_path, RatedReply(100), pictures=True)
    other.ask(questions)
    assert other.counts["cached"] == 0


def test_a_captioner_that_saw_every_picture_rates_with_a_warning(questions):
    with pytest.warns(UserWarning, match=r"trained with every image.*objective\.image_dropout=0\.5"):
        RatedCaptioner(str(folder_of("generic", 0)))


def test_what_is_no_captioner_is_told(tmp_path):
    with pytest.raises(UsageError, match="holds a dual encoder"):
        RatedCaptioner(str(folder_of("judge", 0)))
    with pytest.raises((UsageError, TypeCheckError)):
        RatedCaptioner(str(shutil.copytree(folder_of("generic", 0), tmp_path / "x")), batch_size=0)
