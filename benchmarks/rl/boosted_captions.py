"""Likelihood training on plain, merged and enriched captions of SceneWorld (No Detail Left Behind: VCB).

Plain captions leave three colours of four out, and one in ten names the background. BlendCap has
what any of the five said; HolisticCap adds what only the picture shows. Each kind is judged by an encoder
that has read all three, of another seed, and by the scenes.
"""

import json
from pathlib import Path

from benchmarks.rl.effects import Study

KINDS = {
    "plain": ["step=[]"],
    "blend": ["step=[blend_captions]"],
    "holistic": ["step=[blend_captions,holistic_caption]"],
}
ALL_KINDS = [*KINDS["holistic"], "step.blend_captions.keep=true", "step.holistic_caption.keep=true"]
WORLD = ["data=sceneworld_backgrounds", "data.train.dropped=0.75"]
WORLD += [f"data.{split}.source.count={count}" for split, count in (("train", 3000), ("val", 50), ("test", 500))]
LENGTH = 64  # tokens: HolisticCap has some 40 words
NUM_STEPS, JUDGE_STEPS = 600, 500


def curated(study: Study, name: str, step: list[str]) -> list[str]:
    """The words of the data of manifests; val and test have their plain captions."""
    out = study.out / f"{name}_captions"
    study.run(out.name, ["task=curate", *WORLD, f"out={out}", *step], made="train.jsonl")
    study.run(out.name, ["task=curate", *WORLD, f"out={out}", "step=[]", "splits=[val,test]"], made="test.jsonl")
    paths = [f"data.{split}.path={out / split}.jsonl" for split in ("train", "val", "test")]
    return ["data=manifest", *paths, "data.transform.size=32", "data.num_workers=0", f"data.max_length={LENGTH}"]


def judge(study: Study) -> Path:
    """A dual encoder of all three kinds of captions."""
    length = [f"model.text_tower.{key}={LENGTH}" for key in ("max_length", "config.max_position_embeddings")]
    words = [
        *curated(study, "all", ALL_KINDS),
        *length,
        "~data.train.dropped",
        "data.batch_size=32",
        f"max_steps={JUDGE_STEPS}",
        f"val_every={JUDGE_STEPS}",
    ]
    return study.run("captions_judge", ["experiment=judge_sceneworld", *words, "seed=100"])


def numbers(study: Study, kind: str, seed: int) -> dict[str, float]:
    """Of the captioner trained on one of KINDS, on the test pictures."""
    data = [*curated(study, kind, KINDS[kind]), f"decoding.max_length={LENGTH - 2}"]
    steps = ["data.captions_per_image=1", f"max_steps={NUM_STEPS}", f"val_every={NUM_STEPS}", "eval_limit=16"]
    run = study.run(
        f"mle_{kind}-{seed}", ["experiment=generic_mle_sceneworld", *data, *steps, f"seed={seed}", "controls=0"]
    )
    words = ["task=evaluate", f"ckpt={run}", *data, "data.batch_size=100", f"metric.rd20.encoder.ckpt={judge(study)}"]
    words += ["metric=[rd20_trained,facts,fact_kinds,diversity]", "metric.fact_kinds.kinds=[color,background]"]
    found = json.loads((study.run(f"mle_{kind}-{seed}-judged", words) / "metrics.json").read_text())
    return {name.removeprefix("test/"): value for name, value in found.items() if name.startswith("test/")}
