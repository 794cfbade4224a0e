"""Rollouts that a server writes: by the policy's weights, with its ids and log-probabilities, or an error."""

import copy
import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from rl_steps import Overlap
from tiny_captioners import tiny_tokenizer
from tiny_chat_models import build, photos, pixels
from torch.utils.data import DataLoader
from vllm_stand_in import VLLMStandIn

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank, world_size
from capkit.errors import ServerFailed, UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.lora import merged
from capkit.objectives.policy.dico import DiCO
from capkit.objectives.policy.ppo import PPO
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.scorers.reward import Reward, RewardTerm
from capkit.testing.distributed import bare_trainer, run_distributed
from capkit.testing.stand_in_server import Reply
from capkit.text.tokenizers import encode_captions
from capkit.train.rl.module import RLModule
from capkit.train.rl.vllm_rollout import VLLMRollout
from capkit.types import CaptionBatch

ADAPTERS = {"freeze": ("vision", "projector"), "lora": (("rank", 2),)}
SAMPLED = Decoding("sample", max_length=5, temperature=1.3)
KEY = "sk-secret-4711"


def policy(family="qwen2_5_vl", **settings):
    return copy.deepcopy(build(family, **{**ADAPTERS, **settings}))


def batch(model, keys=("a", "b")):
    references = [["a red circle ."], ["the small star"]][: len(keys)]
    tokens, mask, length = encode_captions(model.tokenizer, references, model.prompt, 16)
    return CaptionBatch(list(keys), pixels(2)[: len(keys)], None, tokens, mask, length, references=references)


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A function that starts a server of a policy's base model, and a VLLMRollout that asks it."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(model, port=0, settings=None, **of_server):
        server = VLLMStandIn(merged(model).model, model.processor, port=port, **of_server)
        servers.append(server.__enter__())
        rollout = VLLMRollout(server.url, "base", **{"first_wait_s": 0.01, "num_attempts": 2, **(settings or {})})
        rollout.attach(tmp_path)
        return server, rollout

    yield start
    for server in servers:
        server.stop()


def drawn(model, rollout, decoding=SAMPLED, number=3, with_greedy=False):
    rollout.sync(model, 0)
    found = rollout.sample(model, batch(model), decoding, number, with_greedy, lambda: False)
    assert found is not None
    return found


def moved(model, scale=0.5):
    """The model, its adapters changed."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += scale * torch.randn_like(parameter)
    return model


def forced(model, samples, temperature=1.3):
    with torch.no_grad():
        return model.logprobs(model.encode(batch(model)), samples.tokens, samples.mask, temperature)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm", "llava", "internvl"])
def test_a_servers_samples_are_of_the_policy_with_its_adapters(family, served):
    model = moved(policy(family))
    _, rollout = served(policy(family))
    rollout.probe(model, SAMPLED)
    samples = drawn(model, rollout)
    assert samples.tokens.shape[:2] == (2, 3) and samples.tokens[..., 0].eq(model.tokenizer.bos_token_id).all()
    assert len({tuple(row) for row in samples.tokens.flatten(0, 1).tolist()}) > 3
    real = samples.mask[..., 1:]
    torch.testing.assert_close(samples.logprobs[real], forced(model, samples)[real], atol=2e-4, rtol=0)
    assert samples.logprobs[~real].eq(0).all() and samples.tokens[~samples.mask].eq(model.tokenizer.pad_token_id).all()
    last = samples.tokens.gather(-1, samples.mask.sum(-1, keepdim=True) - 1).squeeze(-1)
    assert torch.equal(samples.ended, last == model.tokenizer.eos_token_id)


def test_the_greedy_caption_stands_behind_the_samples(served):
    model = moved(policy())
    _, rollout = served(policy())
    samples = drawn(model, rollout, with_greedy=True)
    own = model.generate(model.encode(batch(model)), Decoding(max_length=5))
    assert [texts[3] for texts in samples.texts] == [texts[0] for texts in own.texts]


def test_draws_belong_to_seed_and_key_and_not_to_the_batch(served):
    model = policy()
    _, rollout = served(model)
    both = drawn(model, rollout)
    one = rollout.sample(model, batch(model, ("a",)), SAMPLED, 3, False, lambda: False)
    other = rollout.sample(model, batch(model), dataclasses.replace(SAMPLED, seed=1), 3, False, lambda: False)
    assert one.texts[0] == both.texts[0] and other.texts != both.texts


def test_the_server_gets_the_pictures_bytes(served):
    model = policy()
    server, rollout = served(model)
    drawn(model, rollout)
    images = {}
    for body in server.asked:
        images[body["seed"]] = server._read(body)["pixel_values"]
    assert len(images) == 2
    own = [server.processor.image_processor(photo.numpy(), return_tensors="pt")["pixel_values"] for photo in photos(2)]
    for image in own:
        assert any(torch.equal(image, found) for found in images.values())


def test_captions_of_one_end_token_are_empty_and_learned(served):
    model = policy()
    model._head.weight.data.zero_()
    model._head.bias = torch.nn.Parameter(torch.zeros(model.vocab_size))
    model._head.bias.data[model.tokenizer.eos_token_id] = 30.0
    _, rollout = served(model)
    samples = drawn(model, rollout)
    assert samples.texts == [[""] * 3] * 2 and samples.ended.all() and samples.tokens.shape[-1] == 2


def test_any_of_several_ends_ends_a_caption(served):
    model = policy()
    word = model.tokenizer.convert_tokens_to_ids("red")
    model.other_ends = (word,)
    model._head.weight.data.zero_()
    model._head.bias = torch.nn.Parameter(torch.zeros(model.vocab_size))
    model._head.bias.data[word] = 30.0
    _, rollout = served(model)
    samples = drawn(model, rollout)
    assert samples.ended.all() and samples.tokens[..., 1].eq(word).all() and samples.tokens.shape[-1] == 2


# -- weights


def test_every_version_has_a_name_of_its_own_and_one_is_kept(served, tmp_path):
    model = policy()
    server, rollout = served(model)
    names = []
    for step in range(3):
        rollout.sync(model, step)
        names.append(rollout._name)
        (loaded,) = server.adapters
        assert loaded == rollout._name and [path.name for path in (tmp_path / "rollout").iterdir()] == [loaded]
        moved(model, 0.1)
    assert len(set(names)) == 3
    rollout.sync(model, 3)
    rollout.sync(model, 4)  # the same weights: nothing is loaded
    assert len(server.loaded) == 4


def test_the_same_weights_by_another_scale_are_another_version(served):
    model = policy()
    server, rollout = served(model)
    rollout.sync(model, 0)
    other = policy(lora=(("rank", 2), ("alpha", 7)))
    other.load_state_dict(model.state_dict())
    rollout.sync(other, 1)
    assert len(server.loaded) == 2


def test_runs_of_one_name_do_not_share_a_folder_of_adapters(served, tmp_path):
    model = policy()
    server, _ = served(model)
    for place in ("first", "second"):
        rollout = VLLMRollout(server.url, "base", adapters_dir=str(tmp_path / "adapters"))
        rollout.attach(tmp_path / place / "seed-0")
        rollout.sync(model, 0)
    assert len(list((tmp_path / "adapters").iterdir())) == len(server.adapters) == 2


def test_sync_every_keeps_the_weights_for_so_many_rollouts(served):
    model = policy()
    server, rollout = served(model, settings={"sync_every": 2})
    behind = []
    for step in range(4):
        rollout.sync(model, step)
        behind.append(rollout.is_behind(step))
        moved(model, 0.1)
    assert len(server.loaded) == 2 and behind == [False, True, False, True]


def test_a_server_that_answers_as_another_model_is_told(served):
    model = policy()
    server, rollout = served(model)
    server.changes = lambda reply: {**reply, "model": "base"} if "model" in reply else reply
    with pytest.raises(ServerFailed, match=r"expected captions by capkit-.*got some by base"):
        drawn(model, rollout)


def test_a_server_that_lists_other_adapters_is_told(served):
    model = policy()
    server, rollout = served(model)
    server.changes = lambda reply: {"data": reply["data"][:1]} if "data" in reply else reply
    with pytest.raises(ServerFailed, match="--api-server-count 1"):
        drawn(model, rollout)


def test_a_server_that_was_started_anew_is_told_and_gets_the_weights_at_the_next_sync(served):
    model = policy()
    server, rollout = served(model)
    drawn(model, rollout)
    server.adapters.clear()
    with pytest.raises(ServerFailed, match="404"):
        rollout.sample(model, batch(model), SAMPLED, 3, False, lambda: False)
    rollout.sync(model, 1)
    assert rollout.sample(model, batch(model), SAMPLED, 3, False, lambda: False) is not None


# -- a step


class Told(RLModule):
    def training_step(self, batch, batch_idx):
        self.told.append(super().training_step(batch, batch_idx))
        return self.told[-1]


def module_of(model, rollout, objective=None, lr=1e-2):
    module = Told(
        model,
        objective=objective or PPO(SAMPLED, num_samples=3, baseline="group", inner_updates=1),
        reward=Reward({"overlap": RewardTerm(Overlap())}),
        optimizer=AdamW(lr=lr, weight_decay=0.0),
        schedule=Constant(),
        decoding=Decoding(max_length=5),
        server=rollout,
    )
    module.keep_reference()
    module.told = []
    return module


def fitted(model, rollout, objective=None, steps=3, lr=1e-2):
    module = module_of(model, rollout, objective, lr)
    trainer = bare_trainer(max_steps=steps, limit_val_batches=0)
    trainer.fit(module, DataLoader([batch(model)] * steps, batch_size=None))
    return module


@pytest.mark.parametrize("objective", ["grpo", "self_critical"])
def test_each_step_learns_from_captions_of_its_own_weights(objective, served):
    model = policy()
    server, rollout = served(model)
    chosen = SelfCritical(SAMPLED, num_samples=2) if objective == "self_critical" else None
    told = fitted(model, rollout, chosen).told
    assert len(server.loaded) == len({name for name, _ in server.loaded}) == 3
    for numbers in told:
        assert numbers["rl/logprob_gap"] < 2e-4 and numbers["rl/server_ratio"] == pytest.approx(1, abs=1e-3)
        assert numbers["rl/server_ratio_off"] < 1e-3
    with torch.no_grad():  # what the server had last is what the policy was before its last update
        last = server.loaded[-1][1].state_dict()
    assert not all(torch.equal(value, server.network.state_dict()[name]) for name, value in last.items())


def test_between_synchronisations_the_ratio_starts_from_the_servers_logprobs(served):
    model = policy()
    _, rollout = served(model, settings={"sync_every": 2})
    seen = []

    class Watched(PPO):
        def loss(self, logprobs, old_logprobs, advantages, loss_mask):
            seen.append(((logprobs - old_logprobs).detach().masked_fill(~loss_mask, 0.0)).abs().max().item())
            return super().loss(logprobs, old_logprobs, advantages, loss_mask)

    told = fitted(model, rollout, Watched(SAMPLED, num_samples=3, baseline="group", inner_updates=1), lr=0.1).told
    assert seen[0] == seen[2] == 0.0 and seen[1] > 0.01
    assert told[1]["rl/logprob_gap"] > 1e-3 > told[0]["rl/logprob_gap"]
    assert told[1]["rl/server_ratio_off"] > 1e-3


def test_a_server_that_keeps_old_weights_under_a_new_name_ends_the_run_before_the_update(served):
    model = policy()
    server, rollout = served(model)
    server.keeps_old_weights = True
    before = []

    class Kept(Told):
        def backward_parts(self, parts, step, is_first):
            before.append([p.detach().clone() for p in self.model.parameters() if p.requires_grad])
            return super().backward_parts(parts, step, is_first)

    module = module_of(model, rollout, lr=0.5)
    module.__class__ = Kept
    trainer = bare_trainer(max_steps=3, limit_val_batches=0)
    with pytest.raises(ServerFailed, match=r"differ from the policy's by .* above rollout.max_gap=0.2"):
        trainer.fit(module, DataLoader([batch(model)] * 3, batch_size=None))
    assert len(before) == 2 and trainer.global_step == 1
    after = [p for p in model.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(before[1], after, strict=True))


def test_what_a_server_of_other_weights_wrote_is_forgotten_before_the_run_is_saved(served):
    model = policy()
    server, rollout = served(model)
    server.logprobs_mode = "raw_logprobs"
    hot = PPO(dataclasses.replace(SAMPLED, temperature=3.0), num_samples=3, baseline="running_mean", inner_updates=1)
    module = module_of(model, rollout, hot)
    fresh, seen = copy.deepcopy(hot.state_dict()), []

    class Watched(Told):
        def backward_parts(self, parts, step, is_first):
            seen.append(copy.deepcopy(self.objective.state_dict()))
            return super().backward_parts(parts, step, is_first)

    module.__class__ = Watched
    with pytest.raises(ServerFailed):
        bare_trainer(max_steps=1, limit_val_batches=0).fit(module, DataLoader([batch(model)], batch_size=None))
    assert seen[0] != fresh and module.objective.state_dict() == fresh


def test_logprobs_before_temperature_end_the_run(served):
    model = policy()
    server, rollout = served(model)
    server.logprobs_mode = "raw_logprobs"
    hot = PPO(dataclasses.replace(SAMPLED, temperature=3.0), num_samples=3, baseline="group", inner_updates=1)
    with pytest.raises(ServerFailed, match="--logprobs-mode processed_logprobs"):
        fitted(model, rollout, hot)


def shares(url, folder):
    """Weights, draws and numbers of two steps of this rank's share of four pictures."""
    os.environ["no_proxy"] = "*"
    model = policy()
    rollout = VLLMRollout(url, "base", adapters_dir=folder)
    rollout.attach(Path(folder))
    whole, written = batch(model, ("a", "b")), []

    class Kept(Told):
        def score_rollout(self, batch, samples, greedy, kl, step):
            written.append(dict(zip(batch.keys, samples.texts, strict=True)))
            return super().score_rollout(batch, samples, greedy, kl, step)

    module = module_of(model, rollout)
    module.__class__ = Kept
    own = [whole.select(list(range(rank(), 2, world_size())))] * 2
    trainer = bare_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(module, DataLoader(own, batch_size=None))
    numbers = [{name: float(value) for name, value in told.items()} for told in module.told]
    return written, numbers, {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.integration
def test_two_processes_write_and_learn_what_one_does(served, tmp_path):
    server, _ = served(policy())
    (together, numbers, weights) = shares(server.url, str(tmp_path / "one"))
    (first, told, ours), (second, _, theirs) = run_distributed(shares, 2, server.url, str(tmp_path / "two"))
    assert together == [one | other for one, other in zip(first, second, strict=True)]
    assert len(server.loaded) == 4  # one process loads the adapters of all
    for one, two in zip(numbers, told, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    for name, value in weights.items():
        assert torch.equal(ours[name], theirs[name])
        torch.testing.assert_close(value, ours[name], atol=1e-5, rtol=1e-4)


def rank_without_an_answer(url, folder):
    os.environ["no_proxy"] = "*"
    model = policy()
    rollout = VLLMRollout(url, "base", adapters_dir=folder, num_attempts=1)
    rollout.attach(Path(folder))
    rollout.sync(model, 0)
    if rank() == 1:
        model.question = "what is near ?"  # which the server reads otherwise than this rank expects
    with pytest.raises(ServerFailed, match="otherwise than the policy"):
        rollout.sample(model, batch(model), SAMPLED, 2, False, lambda: False)


@pytest.mark.integration
def test_every_rank_hears_of_one_ranks_failure(served, tmp_path):
    server, _ = served(policy())
    run_distributed(rank_without_an_answer, 2, server.url, str(tmp_path / "two"))


# -- a server in trouble


def test_passing_faults_are_retried(served):
    model = policy()
    server, rollout = served(model, settings={"num_attempts": 4})
    server.faults = {
        "/v1/chat/completions": [Reply("busy", 503), Reply("{}", ending="drop")],
        "/v1/load_lora_adapter": [Reply("busy", 429)],
        "/v1/models": [Reply("busy", 503)],
    }
    assert drawn(model, rollout).texts


def test_adapters_whose_replies_were_lost_count_as_loaded_and_unloaded(served):
    model = policy()
    server, rollout = served(model)
    server.lost = ["/v1/load_lora_adapter"]
    rollout.sync(model, 0)
    first = rollout._name
    moved(model)
    server.lost = ["/v1/unload_lora_adapter", "/v1/load_lora_adapter"]
    rollout.sync(model, 1)
    assert list(server.adapters) == [rollout._name] != [first] and not server.lost


def test_a_server_that_is_away_is_told_on_the_way(served):
    model = policy()
    server, rollout = served(model)
    drawn(model, rollout)
    server.stop()
    with pytest.raises(ServerFailed, match=r"no connection to .*start the server"):
        rollout.sample(model, batch(model), SAMPLED, 3, False, lambda: False)


def test_a_run_that_stops_does_not_wait_for_the_server(served):
    model = policy()
    server, rollout = served(model)
    rollout.sync(model, 0)
    held = threading.Event()
    server.changes = lambda reply: (held.wait(20), reply)[1]
    assert rollout.sample(model, batch(model), SAMPLED, 3, False, lambda: len(server.asked) > 0) is None
    assert not held.is_set() and held.set() is None


def of_choices(reply, **changed):
    return {**reply, "choices": [{**choice, **changed} for choice in reply["choices"]]}


def of_tokens(reply, **changed):
    choices = [
        {**c, "logprobs": {"content": [{**t, **changed} for t in c["logprobs"]["content"]]}} for c in reply["choices"]
    ]
    return {**reply, "choices": choices}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda reply: {**reply, "prompt_token_ids": None}, "gives no token ids"),
        (lambda reply: {**reply, "prompt_token_ids": reply["prompt_token_ids"][:-1]}, "otherwise than the policy"),
        (
            lambda reply: {**reply, "choices": [{**c, "logprobs": None} for c in reply["choices"]]},
            "a log-probability of",
        ),
        (lambda reply: of_tokens(reply, logprob=float("nan")), "finite and at most 0, got nan"),
        (lambda reply: of_tokens(reply, logprob=0.5), "finite and at most 0, got 0.5"),
        (lambda reply: of_tokens(reply, logprob="many"), "malformed reply"),
        (lambda reply: of_choices(reply, token_ids=["a", "b"]), "malformed reply"),
        (lambda reply: of_choices(reply, token_ids=[2**31, 2**31]), "expected token ids below"),
        (lambda reply: {**reply, "choices": reply["choices"][:0]}, "expected 1 captions, got 0"),
        (lambda reply: {**reply, "choices": [{**c, "finish_reason": "abort"} for c in reply["choices"]]}, "abort"),
        (
            lambda reply: {
                **reply,
                "choices": [
                    {**c, "token_ids": c["token_ids"][:-1], "logprobs": {"content": c["logprobs"]["content"][:-1]}}
                    for c in reply["choices"]
                ],
            },
            "",
        ),
    ],
)
def test_a_reply_that_cannot_be_learned_from_is_refused_before_the_run(change, message, served):
    model = policy()
    server, rollout = served(model)
    rollout.probe(model, SAMPLED)
    if not message:  # an end that is not among the ids
        model._head.bias = torch.nn.Parameter(torch.zeros(model.vocab_size))
        model._head.bias.data[model.tokenizer.eos_token_id] = 1e4
        server, rollout = served(model)
        message = "expected a caption of at most 2 tokens with its end"
    server.changes = lambda reply: change(reply) if "choices" in reply else reply
    with pytest.raises(UsageError, match=message):
        rollout.probe(model, SAMPLED)


def test_another_tokenizer_or_template_or_size_of_picture_is_refused_before_the_run(served):
    model = policy()
    server, rollout = served(model)
    server.processor.image_processor.size = {"shortest_edge": 14 * 14, "longest_edge": 14 * 14}
    with pytest.raises(UsageError, match=r"reads a picture and the question otherwise.*x 4"):
        rollout.probe(model, SAMPLED)


def test_no_server_another_model_a_wrong_key_and_no_adapters_are_told(served, monkeypatch):
    model = policy()
    server, rollout = served(model)
    rollout.find()
    with pytest.raises(UsageError, match=r"rollout.model=other: expected a name .* it has base"):
        VLLMRollout(server.url, "other").find()
    with pytest.raises(UsageError, match="no connection to"):
        VLLMRollout("http://127.0.0.1:9/v1", "base", num_attempts=1).find()
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    server.key = "another"
    with pytest.raises(UsageError, match="the key was rejected") as told:
        VLLMRollout(server.url, "base", api_key_variable="ROLLOUT_KEY").find()
    assert KEY not in str(told.value)
    server.key, server.updates = None, False
    with pytest.raises(ServerFailed, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        drawn(model, rollout)
    server.updates, server.max_lora_rank = True, 1
    with pytest.raises(ServerFailed, match="rank 2 is greater than max_lora_rank 1"):
        drawn(model, rollout)


# -- what a server cannot do


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: policy(lora=None, freeze=("vision",)), "expected adapters of the language model"),
        (
            lambda: policy(freeze=("vision",), lora=(("rank", 2), ("targets", ("0", "q_proj")))),
            "expected adapters of the",
        ),
        (lambda: policy("paligemma"), "got paligemma: it has no chat template"),
        (lambda: policy("llava_onevision"), "got llava_onevision: vLLM takes no adapters"),
    ],
)
def test_policies_that_a_server_cannot_be_are_refused_with_the_reason(model, message):
    with pytest.raises(UsageError, match=message):
        module_of(model(), VLLMRollout("http://127.0.0.1:9/v1", "base"))


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        (PPO(Decoding("sample", max_length=5, top_k=3), num_samples=2), {}, "samples from all tokens"),
        (PPO(Decoding("sample", max_length=5, min_length=2), num_samples=2), {}, "samples from all tokens"),
        (DiCO(Decoding("beam", num_beams=2, max_length=5), num_samples=2), {}, "samples from all tokens"),
        (SelfCritical(SAMPLED, num_samples=2), {"sync_every": 2}, "need the ratio of PPO or GRPO, got SelfCritical"),
        (PPO(Decoding("sample", max_length=39), num_samples=2), {}, "expected question and caption within"),
    ],
)
def test_objectives_that_need_more_than_a_server_gives_are_refused(objective, settings, message):
    with pytest.raises(UsageError, match=message):
        module_of(policy(), VLLMRollout("http://127.0.0.1:9/v1", "base", **settings), objective)


def test_captions_that_answer_prompts_of_their_own_are_refused(served):
    model = policy()
    _, rollout = served(model)
    rollout.sync(model, 0)
    prompted = batch(model)
    prompted.prompts = torch.ones(2, 1, 3, dtype=torch.long)
    prompted.prompts_mask = torch.ones(2, 1, 3, dtype=torch.bool)
    with pytest.raises(ServerFailed, match="prompts of their own"):
        rollout.sample(model, prompted, SAMPLED, 2, False, lambda: False)


def test_a_captioner_of_another_kind_is_refused():
    model = EncoderDecoder(tiny_tokenizer(), SmallCNN(32, width=16), width=16, num_heads=2)
    with pytest.raises(UsageError, match="expected model=chat_vlm, got EncoderDecoder"):
        module_of(model, VLLMRollout("http://127.0.0.1:9/v1", "base"))


def test_nothing_that_is_sent_or_kept_holds_the_key(served, monkeypatch, tmp_path):
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    model = policy()
    server, rollout = served(model, key=KEY, settings={"api_key_variable": "ROLLOUT_KEY"})
    drawn(model, rollout)
    assert all(request["key"] == f"Bearer {KEY}" for request in server.requests)
    assert KEY not in json.dumps([request["body"] for request in server.requests])
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
