"""A reward of named terms: how they are shaped, weighted and combined, and what is told when one fails."""

import math

import pytest
import torch
import torch.distributed as dist

from capkit.distributed.collectives import mean_and_std_over_ranks
from capkit.errors import UsageError
from capkit.optim.schedules import Linear
from capkit.scorers.reward import Reward, RewardError, RewardTerm
from capkit.scorers.shuffled import Shuffled
from capkit.scorers.text_rules import Length
from capkit.testing.distributed import run_distributed
from capkit.types import CaptionBatch, Samples

NAN = math.nan
BATCH = CaptionBatch(keys=["a.png", "b.png"], references=[["a cat"], ["a dog"]])
SAMPLES = Samples.from_texts([["one cat", "two cats"], ["one dog", "two dogs"]])


class Given:
    """Scores by caption."""

    def __init__(self, scores):
        self.scores = scores

    def __call__(self, batch, samples):
        return torch.tensor([[self.scores[text] for text in texts] for texts in samples.texts])


def given(*scores):
    texts = [text for image in SAMPLES.texts for text in image]
    return Given(dict(zip(texts, scores, strict=True)))


def total(terms, combine="sum", step=0, total_steps=10):
    return Reward(terms, combine)(BATCH, SAMPLES, step, total_steps).total


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), equal_nan=True, atol=1e-6, rtol=1e-6)


# -- combining


def test_weighted_sum_by_hand_with_its_parts():
    # 2.0 * .31 + 1.0 * .9 = 1.52 and so on.
    terms = {
        "clip": RewardTerm(given(0.31, 0.2, 0.1, 0.0), weight=2.0),
        "grammar": RewardTerm(given(0.9, 1.0, 0.5, 0.0)),
    }
    scores = Reward(terms)(BATCH, SAMPLES, 0, 1)
    close(scores.total, [[1.52, 1.4], [0.7, 0.0]])
    close(scores.raw["clip"], [[0.31, 0.2], [0.1, 0.0]])
    close(scores.weighted["clip"], [[0.62, 0.4], [0.2, 0.0]])


def test_geometric_mean_by_hand():
    # (.25^1 * 1^3)^(1/4) = .707107; (.5 * .5^3)^(1/4) = .5; (1 * .008)^(1/4) = .299070 with .2^3; 0 wherever one is 0.
    terms = {"a": RewardTerm(given(0.25, 0.5, 1.0, 0.0)), "b": RewardTerm(given(1.0, 0.5, 0.2, 0.9), weight=3)}
    close(total(terms, "geometric_mean"), [[0.707107, 0.5], [0.299070, 0.0]])


@pytest.mark.parametrize("combine", ["sum", "geometric_mean"])
def test_a_caption_that_one_term_cannot_score_has_no_reward_and_the_others_keep_theirs(combine):
    terms = {"a": RewardTerm(given(0.1, NAN, 0.3, 0.4)), "b": RewardTerm(given(0.5, 0.5, 0.5, 0.5))}
    whole = {"a": RewardTerm(given(0.1, 0.2, 0.3, 0.4)), "b": terms["b"]}
    found, without = total(terms, combine), total(whole, combine)
    assert found.isnan().tolist() == [[False, True], [False, False]]
    assert torch.equal(found[~found.isnan()], without[~found.isnan()])


@pytest.mark.parametrize("combine", ["sum", "geometric_mean"])
def test_a_term_of_weight_zero_is_scored_and_takes_no_part_even_where_it_cannot_score(combine):
    watched = RewardTerm(given(NAN, -2.0, 7.0, 1.0), weight=0.0)
    used = RewardTerm(given(0.1, 0.2, 0.3, 0.4))
    scores = Reward({"a": used, "watched": watched}, combine)(BATCH, SAMPLES, 0, 1)
    close(scores.total, [[0.1, 0.2], [0.3, 0.4]])
    close(scores.raw["watched"], [[NAN, -2.0], [7.0, 1.0]])


def test_all_weights_zero_give_a_reward_of_zero():
    close(total({"a": RewardTerm(given(1.0, 2.0, 3.0, 4.0), weight=0)}), [[0.0, 0.0], [0.0, 0.0]])


def test_weights_follow_their_schedule():
    # From 1 to 0 over 10 steps: at step 4 it is .6.
    terms = {"a": RewardTerm(given(1.0, 2.0, 3.0, 4.0), weight=Linear(1.0, 0.0))}
    close(total(terms, step=0), [[1.0, 2.0], [3.0, 4.0]])
    close(total(terms, step=4), [[0.6, 1.2], [1.8, 2.4]])


# -- shaping


def test_clipping_by_hand_keeps_missing_scores_missing():
    term = RewardTerm(given(-3.0, 0.5, NAN, 9.0), clip=(0, 2))
    close(total({"a": term}), [[0.0, 0.5], [NAN, 2.0]])


def test_normalisation_by_hand_comes_before_clipping():
    # 1 2 3 6: mean 3, deviation 3.5^.5 = 1.870829.
    close(
        total({"a": RewardTerm(given(1.0, 2.0, 3.0, 6.0), normalize="batch")}),
        [[-1.069045, -0.534522], [0.0, 1.603567]],
    )
    clipped = RewardTerm(given(1.0, 2.0, 3.0, 6.0), normalize="batch", clip=[-1, 1])
    close(total({"a": clipped}), [[-1.0, -0.534522], [0.0, 1.0]])


def test_normalisation_leaves_missing_scores_out():
    # 1 and 3: mean 2, deviation 1.
    close(total({"a": RewardTerm(given(1.0, NAN, 3.0, NAN), normalize="batch")}), [[-1.0, NAN], [1.0, NAN]])


def test_a_batch_without_spread_is_normalised_to_zero_and_one_without_scores_stays_missing():
    close(total({"a": RewardTerm(given(0.1, 0.1, NAN, 0.1), normalize="batch")}), [[0.0, 0.0], [NAN, 0.0]])
    close(total({"a": RewardTerm(given(NAN, NAN, NAN, NAN), normalize="batch")}), [[NAN, NAN], [NAN, NAN]])


def test_raw_scores_are_those_before_shaping():
    scores = Reward({"a": RewardTerm(given(-3.0, 0.5, 1.0, 9.0), weight=2.0, clip=(0, 1))})(BATCH, SAMPLES, 0, 1)
    close(scores.raw["a"], [[-3.0, 0.5], [1.0, 9.0]])
    close(scores.weighted["a"], [[0.0, 1.0], [2.0, 2.0]])


SCORES = torch.tensor([0.3, 0.1, NAN, 0.9, 0.4, 0.8]).view(3, 2)


class ByKey:
    def __call__(self, batch, samples):
        return SCORES[[int(key) for key in batch.keys]]


def normalised_by_rank():
    """Rank 0 has two images, rank 1 one."""
    rows = [[0, 1], [2]][dist.get_rank()] if dist.is_initialized() else [0, 1, 2]
    batch = CaptionBatch(keys=[str(row) for row in rows])
    samples = Samples.from_texts([["x", "y"]] * len(rows))
    scores = Reward({"a": RewardTerm(ByKey(), normalize="batch")})(batch, samples, 0, 1)
    return scores.total, mean_and_std_over_ranks(scores.raw["a"])


@pytest.mark.integration
def test_two_processes_normalise_as_one():
    alone, numbers = normalised_by_rank()
    (first, numbers_0), (second, numbers_1) = run_distributed(normalised_by_rank, 2)
    torch.testing.assert_close(torch.cat([first, second]), alone, equal_nan=True)
    assert numbers_0 == numbers_1 == pytest.approx(numbers)


# -- failures


class Breaks:
    """Cannot bear one caption."""

    def __init__(self, caption):
        self.caption = caption

    def __call__(self, batch, samples):
        if any(self.caption in texts for texts in samples.texts):
            raise ValueError("too odd")
        return torch.ones(len(samples.texts), len(samples.texts[0]))


def test_a_scorer_that_raises_names_reward_image_and_caption():
    with pytest.raises(
        RewardError, match=r"reward odd failed on image 'b.png', caption 'one dog': ValueError: too odd"
    ):
        total({"fine": RewardTerm(Breaks("never")), "odd": RewardTerm(Breaks("one dog"))})


class BreaksTogether:
    def __call__(self, batch, samples):
        if len(batch) > 1:
            raise ValueError("too many")
        return torch.ones(1, 1)


def test_a_scorer_that_raises_on_the_batch_alone_says_so():
    with pytest.raises(RewardError, match=r"on the batch of 2 images as a whole \(first: 'a.png'\): ValueError"):
        total({"crowd": RewardTerm(BreaksTogether())})


class BreaksInCompany(Breaks):
    """Compares ranks: trying captions one by one would leave the other ranks waiting."""

    communicates = True
    calls = 0

    def __call__(self, batch, samples):
        self.calls += 1
        return super().__call__(batch, samples)


def test_a_scorer_that_communicates_is_not_called_again_after_it_failed():
    scorer = BreaksInCompany("one dog")
    with pytest.raises(RewardError, match="reward pool failed: ValueError: too odd"):
        total({"pool": RewardTerm(scorer)})
    assert scorer.calls == 1


def test_terms_that_communicate_are_left_out_of_scores_alone():
    reward = Reward({"own": RewardTerm(given(1.0, 2.0, 3.0, 4.0)), "pool": RewardTerm(BreaksInCompany("one dog"))})
    scores = reward.score_alone(BATCH, SAMPLES)
    assert list(scores) == ["own"]
    close(scores["own"], [[1.0, 2.0], [3.0, 4.0]])


def test_terms_of_token_ids_are_left_out_where_captions_are_texts_and_scored_where_they_are_tokens():
    terms = {"words": Length(1, 2, 2), "ids": Length(1, 2, 2, units="token"), "shuffled": Shuffled(Length(1, 2, 2))}
    reward = Reward({name: RewardTerm(scorer) for name, scorer in terms.items()})
    assert list(reward.score_alone(BATCH, SAMPLES)) == ["words"]
    ended, mask = torch.tensor([[True, True]] * 2), torch.ones(2, 2, 3, dtype=torch.bool)
    tokens = Samples(SAMPLES.texts, torch.ones(2, 2, 3, dtype=torch.long), mask, ended)
    scored = reward.score_alone(BATCH, tokens)
    assert list(scored) == ["words", "ids"]
    close(scored["ids"], [[1.0, 1.0]] * 2)  # three ids, of which EOS is not counted
    wrapped = Shuffled(Length(1, 2, 2, units="token"))
    assert wrapped.needs_tokens and not Shuffled(given(1.0, 2.0, 3.0, 4.0)).needs_tokens


def test_scores_come_where_the_samples_lie_wherever_a_scorer_left_them():
    """A scorer that answers on the host beside one that answers on the device: terms are added on the device."""
    elsewhere = torch.device("meta")
    tokens = torch.ones(2, 2, 3, dtype=torch.long, device=elsewhere)
    samples = Samples(SAMPLES.texts, tokens, tokens.bool(), tokens.bool().any(-1))
    reward = Reward({"host": RewardTerm(given(1.0, 2.0, 3.0, 4.0)), "device": RewardTerm(Length(1, 2, 2))})
    scores = reward.score_alone(BATCH, samples)
    assert {name: score.device for name, score in scores.items()} == {"host": elsewhere, "device": elsewhere}
    assert reward.combined(scores, 1, 1).total.shape == (2, 2)


# -- hooks


class Judge(Breaks):
    """Has every hook that a scorer may have."""

    def __init__(self):
        super().__init__("never")
        self.told, self.seen = {}, 0

    def attach_images(self, read):
        self.told["image"] = read("a.png")

    def fit(self, references):
        self.told["references"] = references

    def to(self, device):
        self.told["device"] = device

    def provenance(self):
        return {"judge": "tiny"}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]

    def logs(self):
        return {"pool_size": 8.0}


def test_scorers_are_given_what_they_ask_for_and_others_are_left_alone():
    judge = Judge()
    reward = Reward({"judge": RewardTerm(judge), "plain": RewardTerm(Breaks("never"))})
    reward.prepare(lambda key: f"picture of {key}", lambda: [["a cat"]], "cpu")
    assert judge.told == {"image": "picture of a.png", "references": [["a cat"]], "device": "cpu"}
    assert reward.provenance() == {"judge": {"judge": "tiny"}}
    assert reward.logs() == {"judge_pool_size": 8.0}


def test_references_are_not_read_where_no_scorer_counts_them():
    def references():
        raise AssertionError("read")

    Reward({"plain": RewardTerm(Breaks("never"))}).prepare(lambda key: None, references, "cpu")


def test_state_of_scorers_that_have_one_goes_through_the_rewards_state():
    first, second = Judge(), Judge()
    first.seen = 7
    state = Reward({"judge": RewardTerm(first), "plain": RewardTerm(Breaks("x"))}).state_dict()
    assert state == {"judge": {"seen": 7}}
    Reward({"judge": RewardTerm(second), "plain": RewardTerm(Breaks("x"))}).load_state_dict(state)
    assert second.seen == 7


# -- wrong input


def test_negative_scores_are_refused_by_the_geometric_mean_and_the_term_named():
    with pytest.raises(UsageError, match=r"reward b gave -0\.5.*reward\.b\.clip"):
        total(
            {"a": RewardTerm(given(1.0, 1.0, 1.0, 1.0)), "b": RewardTerm(given(1.0, NAN, -0.5, 1.0))}, "geometric_mean"
        )


def test_a_negative_exponent_is_refused_by_the_geometric_mean_and_allowed_in_a_sum():
    terms = {"a": RewardTerm(given(1.0, 0.5, 0.0, 1.0)), "b": RewardTerm(given(0.5, 0.5, 0.5, 0.5), weight=-1)}
    with pytest.raises(UsageError, match=r"reward\.b\.weight=-1; use combine=sum"):
        total(terms, "geometric_mean")
    close(total(terms), [[0.5, 0.0], [-0.5, 0.5]])


def test_a_reward_without_terms_is_refused():
    with pytest.raises(UsageError, match=r"reward=\[cider\]"):
        Reward({})


def test_an_unknown_combination_is_refused():
    with pytest.raises(UsageError, match="geometric_mean"):
        Reward({"a": RewardTerm(Breaks("x"))}, "product")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalize": "rank"}, "normalize"),
        ({"clip": (1, 0)}, "clip"),
        ({"clip": [1, 1]}, "clip"),
        ({"clip": (0,)}, "clip"),
    ],
)
def test_a_term_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        RewardTerm(Breaks("x"), **settings)
