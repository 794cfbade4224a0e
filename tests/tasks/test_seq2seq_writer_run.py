"""A sequence-to-sequence writer by the command line: fit, export, and asked again as `text_lm=hf`."""

import json

import pytest
import torch

from capkit.checkpoint.loading import load_captioner
from capkit.cli import main
from capkit.llm.base import Question
from capkit.llm.huggingface import HFChat

COLORS, SHAPES = ("red", "green", "blue"), ("circle", "square", "cross", "star")
T5 = "{model_type:t5,d_model:16,d_kv:8,d_ff:24,num_layers:1,num_heads:2,tie_word_embeddings:false}"
TINY = [
    "debug=tiny", "data.train.val=.2", "data.train.test=.2", "trainer=cpu", "trainer.devices=1", "data=answers",
    "model=seq2seq_writer", f"model.lm={T5}", "model.tokenizer=word", "model.max_length=48", "metric=[bleu]",
    "data.max_length=16", "decoding.max_length=12", "max_steps=4", "val_every=2", "optimizer.lr=1e-2",
    "scheduler=constant",
]  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_an_export_answers_what_the_run_wrote_and_keeps_a_head_of_its_own(tmp_path, lora):
    rows = [{"prompt": f"{c}\n{s}", "answer": f'{{"caption": "a {c} {s}."}}'} for c in COLORS for s in SHAPES]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, out = tmp_path / "run", tmp_path / "exported"
    words = ["model.lora={rank:2}"] if lora else []
    assert main([*TINY, f"data.train.path={tmp_path / 'pairs.jsonl'}", f"run_dir={run}", *words]) == 0
    assert main(["export", f"ckpt={run}", f"out={out}"]) == 0
    trained, read = load_captioner(str(run))[0], load_captioner(str(out))[0]
    assert lora or not torch.equal(trained.lm.lm_head.weight, trained.lm.shared.weight)
    for model in (trained, read):
        said = HFChat(str(out), max_tokens=12, batch_size=5).ask([Question(row["prompt"]) for row in rows])
        texts = [answer.text if answer.text is not None else answer.said for answer in said]
        assert [text.strip() for text in texts] == written(model, [row["prompt"] for row in rows])
    predicted = json.loads((run / "predictions/test.json").read_text())
    assert {row["caption"] for row in predicted} <= {text.strip() for text in texts}


def written(model, prompts):
    """Greedy answers by transformers' own generate on the run's network, one prompt at a time."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([model.tokenizer(prompt)["input_ids"]])
        out = model.lm.generate(ids, max_new_tokens=12, do_sample=False)
        texts.append(model.tokenizer.decode(out[0, 1:], skip_special_tokens=True).strip())
    return texts
