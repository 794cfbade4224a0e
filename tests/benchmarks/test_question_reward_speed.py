"""benchmarks/question_rewards.py measures what it says: every reader answers all questions, and the loop as we do."""

import pytest

from benchmarks import question_reward_speed as speed
from benchmarks.question_rewards import main
from capkit.readers.hf import HFReader
from capkit.readers.question_sets import in_drawn_order

CAPTIONS = [" ".join(speed.vocabulary.common_words(speed.NUM_WORDS)[start::700]) for start in (1, 2)]


def test_the_loop_chooses_the_letters_that_the_reader_chooses(tmp_path):
    heads = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    shape = {**speed.TINY_SHAPE, **heads, "initializer_range": 1.0}  # wide, so that letters differ
    speed.write_model(tmp_path / "model", shape)
    asked = [[in_drawn_order(item, True, None) for item in speed.Asked(4).of(key, {})] for key in "ab"]
    assert {len(question.choices) for row in asked for question in row} == {speed.NUM_CHOICES}
    loop, own = (
        kind(str(tmp_path / "model"), form="letter", cache_dir=str(tmp_path / kind.__name__)).read(CAPTIONS, asked)
        for kind in (speed.Looped, HFReader)
    )
    chosen = [[reading.choice for reading in row] for row in own]
    assert [[reading.choice for reading in row] for row in loop] == chosen
    assert len({choice for row in chosen for choice in row}) > 1


def test_rates_stand_beside_the_loops_and_shares_beside_the_step():
    found = {speed.LOOP: speed.Measured(16, 10.0, 8.0), "reader=hf": speed.Measured(64, 4.0, 1.0)}
    _, _, loop, own = speed.table(found).splitlines()
    assert loop == "| a loop of generate | 16 | 2.0 | 1.0 x | 10.00 | 80% |"
    assert own == "| reader=hf | 64 | 64.0 | 32.0 x | 4.00 | 25% |"


@pytest.mark.nightly
@pytest.mark.unchecked
def test_a_step_is_measured_with_every_reader(capsys):
    main(
        ["--speed", "--tiny", "--rounds", "1", "--images", "1", "--samples", "2", "--questions", "2"]
    )  # its own length
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ") and " x |" in line]
    assert [row[1] for row in rows] == ["4"] * len(rows) and len(rows) >= 3
