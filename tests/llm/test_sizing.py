import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture, Question
from capkit.llm.cache import AnswerStore, question_key
from capkit.llm.cost import Price
from capkit.llm.ledger import Ledger
from capkit.llm.sizing import scaled, total_size


class Model:
    price, max_tokens = Price(2.0, 10.0), 50


def account(*questions):
    made = Ledger(is_dry=True).account("step/text", Model())
    for question in questions:
        made.expect(question)
    return made


def test_a_dry_run_scales_by_hand():
    """Two questions of 300 bytes: 232 tokens in, 100 out; (232 x 2 + 100 x 10) / 1e6; 2 x 120 + 600 + 4 x 100 bytes."""
    size = scaled(account(Question("x" * 300), Question("y" * 300)), 1000, [100.0, 10.0])
    assert (size.questions, size.tokens_in, size.tokens_out) == (2000, 232_000, 100_000)
    assert size.money == pytest.approx(1.464) and size.store_bytes == 1_240_000
    assert size.gpu_hours == pytest.approx((2320 + 10_000) / 3600)
    both = total_size([size, scaled(account(Question("x" * 300)), 1000)])
    assert both.questions == 3000 and both.gpu_hours == size.gpu_hours, "no speed, no hours"
    assert total_size([scaled(account(), 2)]).gpu_hours is None
    free = Ledger(is_dry=True).account("step/text", type("Free", (), {"max_tokens": 5})())
    assert scaled(free, 3).money is None and total_size([scaled(free, 3), size]).money == size.money


def test_the_store_is_about_as_large_as_reckoned(tmp_path):
    """Lines as they are kept, of answers as long as they may be: 50 tokens of four letters."""
    questions = [
        Question(f'question {i}:\nsay "it" ' + "word " * 40, (Picture(np.zeros((2, 2, 3), np.uint8)),))
        for i in range(50)
    ]
    store = AnswerStore(tmp_path, {"model": "m"})
    for question in questions:
        store.add(question_key(question), Answer("said" * 50, tokens_in=1234, tokens_out=50), question)
    real = (store.folder / "answers.jsonl").stat().st_size
    assert 0.95 * real < scaled(account(*questions), 1).store_bytes < 1.1 * real


def test_one_speed_is_not_enough():
    with pytest.raises(UsageError, match="expected two speeds, of reading and of writing, got 1"):
        scaled(account(Question("x")), 1, [100.0])
