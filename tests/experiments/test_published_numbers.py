"""Every number that an experiment takes from a paper or its released code, with where it was read.

Numbers are compared with the composed config, constructor defaults filled in. A number that differs on purpose stands
here beside ours, and among the deviations that the experiment's yaml lists.
"""

import copy
import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import pytest
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.defaults import with_defaults
from capkit.config.locations import config_dir


@dataclass(frozen=True)
class Number:
    """A dotted key of the config, the published value and its source. `ours` where it differs on purpose, as the yaml's
    deviation of that number says."""

    key: str
    published: Any
    source: str
    ours: Any = None
    deviation: int | None = None

    @property
    def wanted(self) -> Any:
        return self.published if self.deviation is None else self.ours


CHO = "Cho et al. 2022, released configs of phase 2"
CHO_MLE = "Cho et al. 2022, released configs of phase 1"
CHO_TEXT = "Cho et al. 2022, released retrieval/configs (clip_negative_text)"
KORNBLITH = "Kornblith et al. 2023, section 4.1"
NOC = "kakaobrain/noc, released configs; Kang et al. 2023, section 4.1"
LUO = "ImageCaptioning.pytorch, MODEL_ZOO and transformer configs"
CLIPCAP = "Mokady et al. 2021, section 4; released train.py"
DISCRITUNE = "Dessi et al. 2023, section 3; command in EGG issue 258"
EGG = "DiscriTune's code as kept in manugaurdl/no-detail-left-behind, egg/zoo/emergent_captioner/finetuning"
YEMOKOO = "yemokoo/DiscriTune-reproduce, training script"
NDLB = "manugaurdl/no-detail-left-behind, finetuning configs"
DICO = "Moratelli et al. 2024, released code (aimagelab)"
YE = "Ye et al. 2025 (FeedQuill)"
MOCHA = "assafbk/mocha_code, training script"
CLIP = "Radford et al. 2021, tables 18 and 19"
ALIGN = "Jia et al. 2021, section 5"
MERKX = "Merkx & Frank 2019, section 3; released code"
BROMONSCHENKEL = "laicsiifes/transformer-caption-ptbr, ved/src: config.yml and train.py"
FLEXCAP = "Dwibedi et al. 2024, implementation details"
KNOWADA = "moranyanuka/KnowAda, configs/*.json"
DECAPBENCH = "DeCapBench, released evaluation_decapbench.py"
DNLI = "moranyanuka/KnowAda, eval/generate_propositions.py"
OPEN_CHAIR = "assafbk/mocha_code, OpenCHAIR/evaluate.py and utils.py"
MLBCAP = "Kim et al. 2025, sections 3 and 4"
ZHANG = "Zhang et al. 2023 (arXiv 2312.06726), abstract"
IMAGE_REWARD = "Xu et al. 2023 (arXiv 2304.05977), which the released rater follows"
CAPARENA = "njucckevin/CapArena, vlm_as_a_judge.py"
FUSECAP_README = "FuseCap, README: the released captioner"
FUSECAP = "Rotstein et al. 2024 (arXiv 2305.17718)"
EMBODIED = "hsp-iit/embodied-captioning, experimenting_env/captioner/pseudocaptioner.py"
GALLIENA = "Galliena et al. 2025 (arXiv 2504.08531)"
CAPTION_QA = "bronyayang/CaptionQA, released program"
CAPRL = "InternLM/CapRL, Prism_Evaluation/Eval_CapRL.py"
PROMPTCAP = "Yushi-Hu/PromptCap, promptcap.py"
CAPRL_QUESTIONS = "InternLM/CapRL, QA curation"
SYNC = "Kim et al. 2025, section 4; defaults of the released program"
CAPSFUSION = "baaivision/CapsFusion, config.yaml and capsfusion_inference.py"
SCALECAP = "Xing et al. 2025, sections 3 and 4; the released program"
LLAMA_FACTORY = "hiyouga/LLaMA-Factory, examples/train_lora/qwen2_5vl_lora_sft.yaml"
TRL_VLM = "huggingface/trl, examples/scripts/grpo_vlm.py"
TRL_DEFAULTS = "huggingface/trl, defaults of GRPOConfig and ModelConfig"
CAPRL_PAPER = "Xing et al. 2025, section 4; CapRL++'s released training script"
CNM = "Yang et al. 2019, section 4; options of the released program"
CVLNM = "GCYZSL/CVLMN, README's command and opts.py"
DREAMLIP = "Zheng et al. 2024; zyf0619sjtu/DreamLIP, training/params.py"
CAMU = "CAMU (arXiv 2504.17902), implementation details"

BLIP_BASE = "Salesforce/blip-image-captioning-base"
SAMPLED = [
    Number("objective.num_samples", 5, CHO),
    Number("objective.rollout.method", "sample", CHO),
    Number("objective.rollout.temperature", 1.0, CHO),
    Number("objective.rollout.top_k", 0, CHO),
    Number("objective.rollout.top_p", 1.0, CHO),
    Number("objective.baseline", "greedy", CHO),
    Number("objective.reduction", "token", CHO),
    Number("objective.learn_eos", True, CHO),
    Number("max_epochs", 25, CHO),
    Number("optimizer.weight_decay", 0.0, CHO),
    Number("optimizer.clip_norm", "each number to 0.1", CHO, 1.0, 1),
    Number("trainer.precision", "32-true", CHO),
    Number("scheduler._target_", "capkit.optim.schedules.Constant", CHO),
]
BY_CLIP_SCORE = [
    *SAMPLED,
    Number("data.batch_size", 160, CHO),
    Number("optimizer.lr", 5e-6, CHO),
    Number("reward.clip_score.weight", 2.0, CHO),
    Number("reward.clip_score.scorer.weight", 2.5, "Hessel et al. 2021, equation 1"),
    Number("reward.clip_score.scorer.encoder.model", "openai/clip-vit-base-patch32", CHO),
    Number("reward.clip_score.scorer.encoder.prompt", "A photo depicts", CHO),
    Number("callback.checkpoints.select", "CIDEr", CHO, None, 3),
]
TRANSFORMER = [
    Number("model.width", 512, LUO),
    Number("model.num_layers", 6, LUO),
    Number("model.context_layers", 6, LUO),
    Number("model.num_heads", 8, LUO),
    Number("model.feedforward", 2048, LUO),
    Number("model.dropout", 0.1, LUO),
    Number("data.captions_per_image", 5, LUO),
    Number("optimizer.lr", 5e-4, LUO),
    Number("scheduler._target_", "capkit.optim.schedules.Noam", LUO),
    Number("scheduler.warmup", 20000, LUO),
    Number("decoding.num_beams", 5, LUO),
]
GRAMMAR_HEAD = [
    Number("model.name", "openai/clip-vit-base-patch32", CHO_TEXT),
    Number("model.tune_image.mode", "frozen", CHO_TEXT),
    Number("model.tune_text", None, f"{CHO_TEXT}: text transformer and projection train whole"),
    Number("data.captions_per_image", 1, f"{CHO_TEXT}: one of the five, drawn"),
    Number("callback.checkpoints.select", "min loss", f"{CHO_TEXT}: monitors the validation loss"),
    Number("model.grammar_head", True, CHO_TEXT),
    Number("objective.weights", None, f"{CHO_TEXT}: 1 and 1"),
    Number("data.batch_size", 1600, CHO_TEXT),
    Number("optimizer.lr", 1e-4, CHO_TEXT),
    Number("optimizer.weight_decay", 0.01, CHO_TEXT),
    Number("optimizer.eps", 1e-6, CHO_TEXT),
    Number("max_epochs", 30, CHO_TEXT),
    Number("trainer.precision", "32-true", CHO_TEXT),
]
GREEDY_LISTENER = [
    Number("reward.self_retrieval.scorer.encoder.model", "openai/clip-vit-base-patch32", DISCRITUNE),
    Number("reward.self_retrieval.scorer.form", "log_softmax", DISCRITUNE),
    Number("objective.rollout.method", "greedy", DISCRITUNE),
    Number("objective.num_samples", 1, DISCRITUNE),
    Number("data.batch_size", 100, DISCRITUNE),
    Number("optimizer.lr", 1e-7, DISCRITUNE),
    Number("max_epochs", 20, DISCRITUNE),
    Number("decoding.num_beams", 5, DISCRITUNE),
    Number("objective.kl", "none", DISCRITUNE),
    Number("optimizer.weight_decay", 0.0, f"{DISCRITUNE}: Adam"),
    Number("scheduler._target_", "capkit.optim.schedules.Constant", DISCRITUNE),
    Number("callback.checkpoints.select", "max rd100_r1", DISCRITUNE),
    Number("trainer.precision", "32-true", DISCRITUNE),
]
SELF_RETRIEVAL = [
    Number("reward.self_retrieval.scorer.encoder.model", "openai/clip-vit-base-patch32", NDLB),
    Number("reward.self_retrieval.scorer.scale", None, f"{NDLB}: CLIP's own logit scale"),
    Number("objective.rollout.method", "sample", NDLB),
    Number("objective.rollout.temperature", 0.3, NDLB),
    Number("objective.rollout.max_length", 50, NDLB),
    Number("objective.num_samples", 1, NDLB),
    Number("objective.reduction", "seq_mean", NDLB),
    Number("objective.learn_eos", False, NDLB),
    Number("objective.kl", "none", NDLB),
    Number("callback.checkpoints.select", "max rd100_r1", NDLB),
    Number("data.batch_size", 100, NDLB),
    Number("max_epochs", 20, NDLB),
    Number("decoding.num_beams", 5, NDLB),
    Number("trainer.precision", "32-true", NDLB),
    *(
        Number(f"model.lora.{part}.{key}", value, NDLB)
        for part in ("lm", "image_encoder")
        for key, value in (("rank", 32), ("alpha", 16), ("init_std", 1.0))
    ),
]
CLIPCAP_MODEL = [
    Number("model.lm", "gpt2", CLIPCAP),
    Number("model.mapper", "mlp", CLIPCAP),
    Number("model.prefix_length", 10, CLIPCAP),
    Number("model.image_encoder.name", "openai/clip-vit-base-patch32", CLIPCAP),
    Number("max_epochs", 10, CLIPCAP),
    Number("optimizer.lr", 2e-5, CLIPCAP),
    Number("data.batch_size", 40, CLIPCAP),
    Number("trainer.precision", "32-true", f"{CLIPCAP}: no mixed precision"),
]
BAGS = {3: "hard-2", 8: "hard-3", 10: "hard-5", 12: "hard-7", 14: "hard-10", 17: "hard-15", 20: "hard-20"}


def modular(source: str, blocks: int, controller: str, weight: float, until: int, micro: int) -> list[Number]:
    """The likelihood stage of CNM or CVLNM. Epochs are of 113,287 images, 100 a step: 1,133 steps."""
    return [
        Number("model.feature_width", 2048, f"{source}: bottom-up attention"),
        Number("model.width", 1000, f"{source}: rnn_size, input_encoding_size"),
        Number("model.attention_width", 512, f"{source}: att_hid_size"),
        Number("model.dropout", 0.5, f"{source}: drop_prob_lm"),
        Number("model.blocks", blocks, f"{source}: mtopdown_num"),
        Number("model.controller", controller, source),
        Number("model.relation_layers", 2, f"{source}: rela_mod_layer"),
        Number("model.num_heads", 8, source),
        Number("objective.weight.values", [weight, 0.0], source),
        Number("objective.weight.boundaries", [until * 1133], f"{source}: until epoch {until}"),
        Number("objective.blocks", "last", source),
        Number("max_steps", 37 * 1133, f"{source}: self_critical_after 37"),
        Number("data.batch_size", 100, f"{source}: batch_size x accumulate_number"),
        Number("micro_batch_size", micro, f"{source}: batch_size"),
        Number("data.captions_per_image", 5, f"{source}: seq_per_img"),
        Number("data.word_classes.classes", "published", source),
        Number("data.word_classes.tagger._target_", "NLTK", source, "capkit.text.tagging.SpacyTagger", 1),
        Number("optimizer.lr", 5e-4, source),
        Number("optimizer.betas", [0.9, 0.999], source),
        Number("optimizer.weight_decay", 0.0, source),
        Number("optimizer.clip_norm", "each number to 0.1", source, 1.0, 2),
        Number("scheduler.boundaries", [5 * 1133 * n for n in range(1, 8)], f"{source}: every 5 epochs"),
        Number("scheduler.values", [1.0, 0.8, 0.64, 0.512, 0.4096, 0.32768, 0.262144, 0.2097152], f"{source}: x .8"),
        Number("trainer.precision", "32-true", source),
        Number("decoding.num_beams", 5, source),
    ]


def modular_scst(source: str, micro: int) -> list[Number]:
    return [
        Number("objective.baseline", "greedy", source),
        Number("data.batch_size", 100, f"{source}: batch_size x accumulate_number"),
        Number("micro_batch_size", micro, f"{source}: batch_size"),
        Number("objective.num_samples", 5, f"{source}: seq_per_img"),
        Number("optimizer.lr", 1e-4, source),
        Number("optimizer.clip_norm", "each number to 0.1", source, 1.0, 1),
        Number("max_epochs", 63, f"{source}: of 100, from 37 on"),
        Number("decoding.num_beams", 5, source),
    ]


PUBLISHED = {
    "cnm": [
        *modular(CNM, 2, "lstm", 1.0, 20, 10),
        Number("objective.sampling.boundaries", [5 * 1133 * n for n in range(1, 6)], f"{CNM}: every 5 epochs"),
        Number("objective.sampling.values", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25], f"{CNM}: .05 more, to .25"),
    ],
    "cnm_scst": modular_scst(CNM, 10),
    "cvlnm": [
        *modular(CVLNM, 1, "self_attention", 0.1, 10, 50),
        Number("model.memory", [1000, 1000], f"{CVLNM}: memory_size, rnn_size"),
        Number("objective.sampling", 0.0, f"{CVLNM}: scheduled_sampling_start 37, where self-critical training starts"),
    ],
    "cvlnm_scst": modular_scst(CVLNM, 50),
    "cfg": [
        Number("objective.image_dropout", 0.5, KORNBLITH),
        Number("max_steps", 20_000, KORNBLITH),
        Number("data.batch_size", 128, KORNBLITH),
        Number("optimizer.lr", 1e-5, KORNBLITH),
        Number("scheduler._target_", "capkit.optim.schedules.Linear", KORNBLITH),
        Number("scheduler.warmup", 1000, KORNBLITH),
    ],
    "captioner_ptbr": [
        Number("model.encoder", "microsoft/swin-base-patch4-window7-224", BROMONSCHENKEL),
        Number("model.decoder", "adalbertojunior/distilbert-portuguese-cased", BROMONSCHENKEL),
        Number("max_epochs", 20, BROMONSCHENKEL),
        Number("data.batch_size", 16, BROMONSCHENKEL),
        Number("data.captions_per_image", 5, f"{BROMONSCHENKEL}: 16 images with their captions, 1,813 steps an epoch"),
        Number("data.max_length", 25, BROMONSCHENKEL),
        Number("data.transform.resize", "squash", f"{BROMONSCHENKEL}: ViTImageProcessor"),
        Number("optimizer.lr", 5e-5, BROMONSCHENKEL),
        Number("optimizer.weight_decay", 0.01, BROMONSCHENKEL),
        Number("optimizer.betas", [0.9, 0.999], f"{BROMONSCHENKEL}: transformers' default"),
        Number("scheduler._target_", "capkit.optim.schedules.Linear", f"{BROMONSCHENKEL}: transformers' default"),
        Number("scheduler.warmup", 0, f"{BROMONSCHENKEL}: transformers' default"),
        Number("trainer.precision", "16-mixed", BROMONSCHENKEL, "bf16-mixed", 1),
        Number("decoding.num_beams", 5, BROMONSCHENKEL),
        Number("decoding.max_length", 25, BROMONSCHENKEL),
        Number(
            "callback.checkpoints.monitor", "rouge_score's ROUGE-L of greedy search", BROMONSCHENKEL, "val/rouge_l", 5
        ),
    ],
    "noc": [
        Number("model.conditions.alignment.count", 8, NOC),
        Number("model.image_encoder.name", "openai/clip-vit-large-patch14", NOC),
        Number("model.image_encoder.pool", 4, NOC),
        Number("model.num_layers", 6, NOC),
        Number("model.width", 768, NOC),
        Number("model.num_heads", 12, NOC),
        Number("model.feedforward", 3072, NOC),
        Number("model.tokenizer", "gpt2", NOC),
        Number("model.max_length", 25, NOC),
        Number("data.max_length", 25, NOC),
        Number("data.batch_size", 2048, NOC),
        Number("max_steps", 13_960, NOC),
        Number("optimizer.lr", 1e-4, NOC),
        Number("optimizer.lr_multipliers", {"image_encoder.*": 0.1}, NOC),
        Number("optimizer.weight_decay", 1e-5, NOC),
        Number("optimizer.clip_norm", 1.0, NOC),
        Number("scheduler._target_", "capkit.optim.schedules.Cosine", NOC),
        Number("scheduler.warmup", 0.1, NOC),
        Number("trainer.precision", "16-mixed", NOC, "bf16-mixed", 2),
        Number("conditions.alignment", "0", NOC, "top", 4),
    ],
    "coco_transformer": [
        *TRANSFORMER,
        Number("data.batch_size", 10, LUO),
        Number("max_epochs", 15, LUO),
    ],
    "clip_reward_mle": [
        *TRANSFORMER,
        Number("model.image_encoder._target_", "capkit.models.encoders.modified_resnet.ModifiedResNet", CHO_MLE),
        Number("model.image_encoder.layers", [3, 4, 6, 3], "Radford et al. 2021, table 19: RN50"),
        Number("model.image_encoder.stem", 64, "Radford et al. 2021, table 19: RN50, width 2048"),
        Number("model.image_encoder.output", "grid", CHO_MLE),
        Number("model.image_encoder.frozen", True, CHO_MLE),
        Number("data.batch_size", 200, CHO_MLE),
        Number("max_epochs", 25, CHO_MLE),
        Number("objective.label_smoothing", 0.0, CHO_MLE),
        Number("trainer.precision", "16-mixed", CHO_MLE),
    ],
    "cider_scst": [
        *SAMPLED,
        Number("data.batch_size", 200, CHO),
        Number("optimizer.lr", 5e-6, CHO),
        Number("reward.cider.scorer.append_eos", True, LUO),
        Number("decoding.num_beams", 5, LUO),
    ],
    "cider_nsc": [
        *(number for number in SAMPLED if number.key != "objective.baseline"),
        Number("objective.baseline", "leave_one_out", "Luo 2020, equation 4"),
        Number("optimizer.lr", 1e-5, LUO),
        Number("data.batch_size", 200, CHO),
    ],
    "clip_reward": BY_CLIP_SCORE,
    "clip_reward_grammar": [*BY_CLIP_SCORE, Number("reward.grammar.weight", 1.0, f"{CHO}; issue 11 of its repository")],
    "clip_cider": [*BY_CLIP_SCORE, Number("reward.cider.weight", 1.0, CHO)],
    "clip_reward_cider": [
        *SAMPLED,
        Number("data.batch_size", 200, CHO),
        Number("optimizer.lr", 5e-6, CHO),
        Number("reward.cider.weight", 1.0, CHO),
        Number("reward.cider.scorer.append_eos", True, LUO),
    ],
    "grammar_clip": GRAMMAR_HEAD,
    "grammar_clip_joint": [
        *GRAMMAR_HEAD,
        Number(
            "objective.terms.info_nce._target_",
            "capkit.objectives.contrastive.edited_candidates.EditedCandidates",
            f"{CHO_TEXT}: joint_out",
        ),
    ],
    "coco_clipcap": [
        *CLIPCAP_MODEL,
        Number("scheduler.warmup", 5000, CLIPCAP),
        Number("decoding.num_beams", 5, CLIPCAP),
    ],
    "discritune": [
        *GREEDY_LISTENER,
        Number("reward.self_retrieval.scorer.scale", None, f"{DISCRITUNE}: CLIP's own logit scale"),
        Number("objective.baseline", "running_mean", DISCRITUNE),
        Number("objective.reduction", "seq_mean", DISCRITUNE),
        Number("objective.rollout.max_length", 20, DISCRITUNE),
        Number("objective.rollout.stop", ".", f"{EGG}, utils.py"),
        Number("decoding.stop", ".", f"{EGG}, utils.py"),
        Number("objective.learn_eos", False, f"{EGG}, clipcap.py"),
    ],
    "discritune_conceptual": [
        *(number for number in GREEDY_LISTENER if number.key != "max_epochs"),
        Number("max_epochs", 2, DISCRITUNE),
        Number("reward.self_retrieval.scorer.scale", None, f"{DISCRITUNE}: CLIP's own logit scale"),
        Number("objective.baseline", "running_mean", DISCRITUNE),
        Number("objective.reduction", "seq_mean", DISCRITUNE),
        Number("objective.rollout.stop", ".", f"{EGG}, utils.py"),
        Number("model.prefix_length", 10, f"{EGG}, clipcap.py"),
        Number("model.mapper", "mlp", f"{EGG}, clipcap.py"),
        Number("model.bos_after_prefix", False, f"{EGG}, clipcap.py"),
    ],
    "discritune_blip": [
        *(number for number in GREEDY_LISTENER if number.key not in ("max_epochs", "decoding.num_beams")),
        Number("max_epochs", 3, DISCRITUNE),
        Number("reward.self_retrieval.scorer.scale", None, f"{DISCRITUNE}: CLIP's own logit scale"),
        Number("objective.baseline", "running_mean", DISCRITUNE),
        Number("objective.reduction", "seq_mean", f"{EGG}, blip.py"),
        Number("objective.learn_eos", True, f"{EGG}, blip.py: every token but padding"),
        Number("objective.rollout.stop", None, f"{EGG}, blip.py"),
        Number("objective.rollout.max_length", 20, f"{EGG}, blip.py"),
        Number("decoding.num_beams", 1, f"{EGG}, blip.py"),
        Number("model.freeze_image_encoder", True, f"{EGG}, blip.py: the text decoder alone is trained"),
        Number("model.prompt", "a picture of", "LAVIS, blip_caption_base_coco.yaml"),
        Number("data.transform.size", 384, "LAVIS, blip_caption_base_coco.yaml"),
    ],
    "discritune_whitened": [
        *(number for number in GREEDY_LISTENER if number.key != "callback.checkpoints.select"),
        Number("callback.checkpoints.select", None, f"{YEMOKOO}: the last checkpoint"),
        Number("reward.self_retrieval.scorer.scale", 1.0, YEMOKOO),
        Number("objective.baseline", "ema", YEMOKOO),
        Number("objective.decay", 0.9, YEMOKOO),
        Number("objective.whiten", True, YEMOKOO),
        Number("objective.reduction", "seq_sum", YEMOKOO),
        Number("objective.rollout.max_length", 40, YEMOKOO),
        Number("optimizer.clip_norm", 1.0, YEMOKOO),
    ],
    "ndlb_mle": [
        *CLIPCAP_MODEL,
        Number("scheduler.warmup", 0.034, NDLB),
        Number("decoding.max_length", 50, NDLB),
    ],
    "ndlb_sr": [
        *SELF_RETRIEVAL,
        Number("objective.baseline", "running_mean", NDLB),
        Number("optimizer.lr", 9e-8, NDLB),
    ],
    "ndlb_sr_cider": [
        *SELF_RETRIEVAL,
        Number("objective.baseline", "greedy", NDLB),
        Number("optimizer.lr", 1e-7, NDLB),
        Number("reward.self_retrieval.weight", 1.0, NDLB),
        Number("reward.cider.weight", 1.0, NDLB),
    ],
    "ndlb_bagcurri": [
        *SELF_RETRIEVAL,
        Number("objective.baseline", "running_mean", NDLB),
        Number("optimizer.lr", 9e-8, NDLB),
        Number("curriculum.stages", BAGS, f"{NDLB}, run both_final"),
    ],
    "mocha": [
        Number("model.name", "Salesforce/blip-image-captioning-large", MOCHA),
        Number("model.prompt", "", MOCHA, "a photography of", 3),
        Number("model.freeze_image_encoder", True, MOCHA),
        Number("data.batch_size", 10, MOCHA),
        Number("objective.num_samples", 10, MOCHA),
        Number("objective.inner_updates", 4, MOCHA),
        Number("objective.clip_low", 0.2, MOCHA),
        Number("objective.clip_high", None, f"{MOCHA}: as low"),
        Number("objective.reduction", "seq_mean", MOCHA),
        Number("objective.learn_eos", True, MOCHA),
        Number("objective.kl", "k1_advantage", MOCHA),
        Number("objective.kl_weight", 0.06, MOCHA),
        Number("objective.baseline", "group", MOCHA),
        Number("objective.divide_by_std", False, MOCHA),
        Number("objective.rollout.temperature", 1.2, MOCHA),
        Number("objective.rollout.top_p", 0.9, MOCHA),
        Number("objective.rollout.max_length", 40, MOCHA),
        Number("reward.nli.weight", 0.5, "Ben-Kish et al. 2024, equation 4 with alpha = .5"),
        Number("reward.bert_score.weight", 0.5, "Ben-Kish et al. 2024, equation 4 with alpha = .5"),
        Number("reward.nli.scorer.judge.name", "facebook/bart-large-mnli", MOCHA),
        Number("reward.bert_score.scorer.form", "adequacy", MOCHA),
        Number("optimizer.lr", 1e-6, MOCHA),
        Number("optimizer.betas", [0.9, 0.999], f"{MOCHA}: AdamW of torch"),
        Number("optimizer.weight_decay", 0.01, f"{MOCHA}: AdamW of torch"),
        Number("optimizer.clip_norm", 5.0, MOCHA),
        Number("callback.checkpoints.select", "max reward", MOCHA),
        Number("decoding.num_beams", 5, "assafbk/mocha_code, README"),
        Number("max_steps", 3000, MOCHA),
        Number("val_every", 10, MOCHA, 100, 5),
        Number("trainer.precision", "32-true", MOCHA),
    ],
    "clip_pretrain": [
        Number("data.batch_size", 32768, CLIP),
        Number("max_epochs", 32, CLIP),
        Number("optimizer.lr", 5e-4, CLIP),
        Number("optimizer.weight_decay", 0.2, CLIP),
        Number("optimizer.betas", [0.9, 0.98], CLIP),
        Number("optimizer.eps", 1e-6, CLIP),
        Number("optimizer.clip_norm", None, CLIP),
        Number("scheduler.warmup", 2000, CLIP),
        Number("model.config.projection_dim", 512, CLIP),
        Number("model.max_logit_scale", 100.0, CLIP),
        Number("scheduler._target_", "capkit.optim.schedules.Cosine", CLIP),
        Number("objective.duplicates", "negative", "Radford et al. 2021, figure 3"),
        Number("data.transform.resize", "crop", "Radford et al. 2021, section 2.4"),
        Number("data.transform.augment", "square", "Radford et al. 2021, section 2.4: a random square, nothing else"),
        Number("trainer.precision", "16-mixed", CLIP, None, 2),
    ],
    "align_pretrain": [
        Number("data.batch_size", 16384, ALIGN),
        Number("max_steps", 1_200_000, ALIGN),
        Number("optimizer._target_", "capkit.optim.optimizers.LAMB", ALIGN),
        Number("optimizer.lr", 1e-3, ALIGN),
        Number("optimizer.weight_decay", 1e-5, ALIGN),
        Number("scheduler._target_", "capkit.optim.schedules.Linear", ALIGN),
        Number("scheduler.warmup", 10000, ALIGN),
        Number("objective.label_smoothing", 0.1, ALIGN),
        Number("data.transform.size", 289, ALIGN),
        Number("data.transform.crop_from", 346, ALIGN),
        Number("data.transform.augment", ["crop", "flip"], ALIGN),
        Number("data.transform.resize", "squash", f"{ALIGN}: to 346 x 346"),
        Number("model.config.temperature_init_value", 1.0, "Jia et al. 2021, section 4.2"),
        Number("model.max_length", 64, ALIGN),
        Number("model.config.projection_dim", 2560, ALIGN, 640, 1),
    ],
    "dreamlip": [
        Number("model.config.vision_config.patch_size", 16, f"{DREAMLIP}: ViT-B/16"),
        Number("model.max_length", 77, f"{DREAMLIP}: context_length"),
        Number("data.sub_captions.count", 8, f"{DREAMLIP}: more do not help"),
        Number("objective.terms.grouping.sigma", 0.0, f"{DREAMLIP}: sgl_delta"),
        Number("objective.terms.grouping.negatives", "image", DREAMLIP),
        Number("objective.weights.captions", 1.0, f"{DREAMLIP}: clip_lossweight"),
        Number("objective.weights.grouping", 1.0, f"{DREAMLIP}: sgl_lossweight"),
        Number("data.batch_size", "64 for each of an unknown number of GPUs", DREAMLIP, 4096, 1),
        Number("max_epochs", 32, DREAMLIP),
        Number("optimizer.lr", 5e-4, DREAMLIP),
        Number("optimizer.weight_decay", 0.2, DREAMLIP),
        Number("optimizer.betas", [0.9, 0.98], DREAMLIP),
        Number("optimizer.eps", 1e-6, DREAMLIP),
        Number("scheduler.warmup", 10_000, DREAMLIP),
    ],
    "dreamlip_recaption": [Number("vision_chat.name", "llava-hf/llava-1.5-7b-hf", f"{DREAMLIP}: LLaVA 1.5's captions")],
    "sentence_gru": [
        Number("model.image_tower.encoder.name", "resnet152", MERKX),
        Number("model.image_tower.encoder.frozen", True, MERKX),
        Number("model.image_tower.size", 224, f"{MERKX}: ten crops of 224 pixels"),
        Number("data.transform.size", 256, f"{MERKX}: the side that crops are cut from"),
        Number("model.embed_dim", 4096, f"{MERKX}: 2 directions x 1,024 x 2 heads"),
        Number("model.text_tower.embedding", 20, MERKX),
        Number("model.text_tower.hidden", 1024, MERKX),
        Number("model.text_tower.layers", 1, MERKX),
        Number("model.text_tower.attention_hidden", 128, MERKX),
        Number("model.text_tower.heads", 2, MERKX),
        Number("objective.terms.ranking_hinge.margin", 0.2, MERKX),
        Number("objective.terms.ranking_hinge.negatives", "both", MERKX),
        *(
            Number(f"objective.terms.diverse_heads.{key}", 1.0, f"{MERKX}: attention_loss, on Flickr8k")
            for key in ("weights", "attention", "embeddings", "margin")
        ),
        Number("data.batch_size", 32, MERKX),
        Number("optimizer.lr", 1e-3, MERKX),
        Number("optimizer.weight_decay", 0.0, f"{MERKX}: Adam"),
        Number("trainer.precision", "32-true", f"{MERKX}: no mixed precision"),
        Number("max_steps", 30_000, f"{MERKX}: 32 epochs of Flickr8k's 30,000 captions"),
        Number("callback.checkpoints.every_steps", 3750, f"{MERKX}: a snapshot at the end of each cycle of 4 epochs"),
        Number("scheduler.cycles", 8, MERKX),
        Number("scheduler.end", 1e-3, f"{MERKX}: from 1e-3 down to 1e-6"),
    ],
    "sync": [
        Number(
            "step.reassign_images.encoder.model", "google/siglip2-base-patch16-256", f"{SYNC}: ViT-B-16-SigLIP2-256"
        ),
        Number(
            "step.reassign_images.sentence_encoder.path",
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
            SYNC,
        ),
        Number("step.reassign_images.mapping", "one_to_many", SYNC),
        Number("step.reassign_images.score", "cycle", f"{SYNC}: retrieval"),
        Number("step.reassign_images.num_images", 15, f"{SYNC}: K"),
        Number("step.reassign_images.num_captions", 2, f"{SYNC}: i2tK"),
        Number("step.reassign_images.keep", 0.9, SYNC),
    ],
    "fusecap": [Number("text_lm.name", "google/flan-t5-xl", f"{FUSECAP}: the fuser that they fine-tuned")],
    "capsfusion": [
        Number("text_lm.name", "BAAI/CapsFus-LLaMA", CAPSFUSION),
        Number("text_lm.dtype", "bfloat16", CAPSFUSION),
        Number("text_lm.num_beams", 3, CAPSFUSION),
        Number("text_lm.max_tokens", 80, f"{CAPSFUSION}: max_new_tokens"),
        Number("text_lm.batch_size", 4, CAPSFUSION),
        Number("step.fuse_alt_text.max_prompt_tokens", 256, f"{CAPSFUSION}: text_input_max_length"),
    ],
    "capsfusion_writer": [
        Number("model.lm", "meta-llama/Llama-2-13b-hf", "Yu et al. 2023: CapsFus-LLaMA starts from LLaMA-2 13B"),
        Number("data.max_prompt_tokens", 256, f"{CAPSFUSION}: text_input_max_length"),
        Number("decoding.num_beams", 3, CAPSFUSION),
    ],
    "fusecap_captioner": [
        Number("model.prompt", "a picture of", FUSECAP_README),
        Number("decoding.num_beams", 3, FUSECAP_README),
    ],
    "fusecap_writer": [
        Number("model.lm", "google/flan-t5-xl", f"{FUSECAP}: the fuser that they fine-tuned"),
    ],
    "flexcap": [
        Number("model.image_encoder.name", "google/siglip-so400m-patch14-224", f"{FLEXCAP}: SigLIP's SO400M/14"),
        Number("model.image_encoder.frozen", False, FLEXCAP),
        Number("model.width", 768, FLEXCAP),
        Number("model.num_layers", 12, FLEXCAP),
        Number("model.num_heads", 12, FLEXCAP),
        Number("model.conditions.length.longest", 8, f"{FLEXCAP}: phrases of 1 to 8 words"),
        Number("data.regions_per_image", 8, FLEXCAP),
        Number("data.max_length", 32, FLEXCAP),
        Number("data.batch_size", 4096, FLEXCAP),
        Number("data.transform.size", 224, FLEXCAP),
        Number("optimizer._target_", "capkit.optim.optimizers.AdamW", FLEXCAP),
        Number("optimizer.lr", 1.6e-4, FLEXCAP),
        Number("optimizer.weight_decay", 0.05, FLEXCAP),
        Number("scheduler._target_", "capkit.optim.schedules.Cosine", FLEXCAP),
        Number("scheduler.warmup", 10_000, FLEXCAP),
        Number("max_steps", 400_000, FLEXCAP),
    ],
    "camu": [
        Number("model.encoder.name", "openai/clip-vit-large-patch14", CAMU),
        Number("model.encoder.tune_text.mode", "last_n", CAMU),
        Number("model.encoder.tune_text.n", 4, CAMU),
        Number("data.batch_size", 512, CAMU),
        Number("micro_batch_size", 64, CAMU),
        Number("optimizer.lr", 1e-4, CAMU),
        Number("max_epochs", 30, CAMU),
        Number("callback.checkpoints.monitor", "val/auroc", f"{CAMU}: stops early"),
        Number("objective.contrastive", 0.0, f"{CAMU}: the best row has no contrastive term"),
    ],
    "embodied": [
        Number("text_lm.name", "meta-llama/Meta-Llama-3-8B-Instruct", EMBODIED),
        Number("text_lm.dtype", "nf4, in 4 bits", EMBODIED, "float16", 1),
        Number("text_lm.temperature", 0.6, EMBODIED),
        Number("text_lm.top_p", 0.9, EMBODIED),
        Number("text_lm.max_tokens", 256, EMBODIED),
        Number("step.agree_on_views.max_words", 20, EMBODIED),
        Number("data.train.margin", 0.1, EMBODIED),
    ],
    "embodied_captioner": [
        Number("model.name", "coca_ViT-L-14 and Salesforce/blip2-opt-2.7b", EMBODIED, BLIP_BASE, 1),
        Number("objective.weight", 0.1, GALLIENA),
        Number("objective.margin", 2.0, GALLIENA),
    ],
    "knowada": [
        Number("step.adapt_to_student.num_answers", 10, KNOWADA),
        Number("step.adapt_to_student.threshold", 8, KNOWADA),
        Number("text_lm.model", "gemini-1.5-flash-001", KNOWADA),
        Number("text_lm.temperature", 0.0, f"{KNOWADA}: top_k 1"),
        Number("vision_chat.temperature", 0.4, KNOWADA),
        Number("vision_chat.max_tokens", 100, KNOWADA),
        Number("vision_chat.seed", 123, KNOWADA),
        Number("vision_chat.name", "google/paligemma-3b-mix-224", KNOWADA, "llava-hf/llava-1.5-7b-hf", 1),
    ],
    "decapbench": [
        Number("text_lm.model", "gpt-4o-2024-05-13", DECAPBENCH),
        Number("vision_chat.model", "gpt-4o-2024-05-13", DECAPBENCH),
        Number("text_lm.temperature", 1.0, DECAPBENCH),
        Number("vision_chat.temperature", 0.3, DECAPBENCH),
        Number("text_lm.max_tokens", 2000, DECAPBENCH),
        Number("vision_chat.max_tokens", 2000, DECAPBENCH),
        Number("matcher.num_samples", 3, DECAPBENCH),
        Number("verifier.num_samples", 3, DECAPBENCH),
        Number("decomposer.retries", "5 tries of a caption", DECAPBENCH, 4, 2),
        Number("metric.dcscore.legacy", "1e-8 in F1", DECAPBENCH, False, 3),
    ],
    "dnli": [
        Number("text_lm.model", "gemini-1.5-flash-002", DNLI),
        Number("text_lm.temperature", 0.0, f"{DNLI}: top_k 1"),
        Number("metric.dnli.neutral_is", "opinion", DNLI),
    ],
    "open_chair": [
        Number("text_lm.name", "meta-llama/Llama-2-70b-chat-hf", OPEN_CHAIR),
        Number("text_lm.dtype", "4 bits (nf4)", OPEN_CHAIR, "bfloat16", 3),
        Number("text_lm.temperature", 0.0, OPEN_CHAIR),
        Number("text_lm.max_tokens", 8, OPEN_CHAIR),
        Number("metric.open_chair.threshold", 4.5, OPEN_CHAIR),
        Number("metric.open_chair.legacy", True, OPEN_CHAIR, False, 2),
    ],
    "caparena_auto": [
        Number("vision_chat.model", "gpt-4o-2024-08-06", CAPARENA),
        Number("vision_chat.temperature", 0.1, f"{CAPARENA}: call_llm overrides the 0.5 of the payload"),
        Number("vision_chat.top_p", 0.9, CAPARENA),
        Number("vision_chat.max_tokens", 1500, CAPARENA),
        Number("judge.retries", 4, f"{CAPARENA}: five tries"),
        Number("judge.prompt", "system_prompt_with_ref", CAPARENA, "arena_v1", 1),
        Number("num_resamples", 1000, "njucckevin/CapArena, cal_ranking.py"),
    ],
    "scalecap": [
        Number("step.scale_caption.describer.name", "Qwen/Qwen2-VL-7B-Instruct", SCALECAP),
        Number("vision_chat.name", "Qwen/Qwen2-VL-7B-Instruct", SCALECAP),
        Number("text_lm.model", "Qwen/Qwen2-72B-Instruct", SCALECAP),
        Number("step.scale_caption.describer.max_tokens", 1024, SCALECAP),
        Number("vision_chat.max_tokens", 512, SCALECAP),
        Number("text_lm.max_tokens", 4096, SCALECAP),
        *[
            Number(f"{model}.{key}", value, SCALECAP)
            for model in ("step.scale_caption.describer", "vision_chat", "text_lm")
            for key, value in (("temperature", 0.0), ("repetition_penalty", 1.05))
        ],
        Number("step.scale_caption.tau", 0.0, f"{SCALECAP}: kept if the largest difference is above it"),
    ],
    "mlbcap": [
        Number("vision_chat.model", "gpt-4o", MLBCAP),
        Number("vision_chat.temperature", 0.0, MLBCAP),
        Number("step.write_candidates.num_examples", 10, MLBCAP),
        Number("step.write_candidates.generators.llama3.model.name", "meta-llama/Meta-Llama-3-8B-Instruct", MLBCAP),
        Number("step.write_candidates.generators.yi.model.name", "01-ai/Yi-1.5-9B-Chat", MLBCAP),
        Number("step.write_candidates.generators.pegasus.model.name", "google/pegasus-large", MLBCAP),
        Number("step.write_candidates.generators.pegasus.max_paragraph_words", "512 tokens", MLBCAP, 384, 3),
        Number("step.judge_candidates.max_words", 50, MLBCAP),
        Number("step.judge_candidates_short.max_words", 30, MLBCAP),
    ],
    "compress_align": [Number("step.keep_best.share", 0.1, ZHANG)],
    "compress_align_rater": [Number("model.frozen_share", 0.7, IMAGE_REWARD)],
    "mlbcap_filter": [
        Number("step.keep_best.threshold", 5, MLBCAP, 4.5, 2),
        Number("step.grade_captions.max_words", 100, MLBCAP),
        Number("step.grade_captions.min_sentences", 2, MLBCAP),
        Number("step.grade_captions.once", "arxiv_id", MLBCAP),
    ],
    "mlbcap_filter_rater": [Number("optimizer.lr", 1e-5, MLBCAP), Number("data.batch_size", 4, MLBCAP)],
    "caption_qa": [
        Number("reader.model.model", "Qwen/Qwen2.5-72B-Instruct", CAPTION_QA),
        Number("reader.model.temperature", 0.0, f"{CAPTION_QA}, qa.py: of vLLM"),
        Number("reader.model.max_tokens", 4, f"{CAPTION_QA}, qa.py"),
        Number("metric.caption_qa.seed", 0, f"{CAPTION_QA}, qa.py"),
        Number("metric.caption_qa.legacy", True, f"{CAPTION_QA}, qa.py: is_yesno_question", False, 2),
        Number("metric.caption_qa.missing", "ignore", f"{CAPTION_QA}, qa.py: skipped_no_caption", "empty", 3),
    ],
    "caption_qa_questions": [
        Number("step.ask_questions.vision_chat.temperature", 1.0, f"{CAPTION_QA}, question building"),
        Number("text_lm.temperature", 1.0, f"{CAPTION_QA}, question building: the blind filter"),
        Number("step.filter_questions.num_samples", 10, f"{CAPTION_QA}, question building: the blind filter"),
        Number("step.filter_questions.num_neighbors", 10, f"{CAPTION_QA}, question building: near-duplicates"),
        Number("step.filter_questions.min_similarity", 0.9, f"{CAPTION_QA}, question building: near-duplicates"),
        Number("step.filter_questions.min_within", 0.85, f"{CAPTION_QA}, question building: near-duplicates"),
        Number("step.filter_questions.agreed", True, f"{CAPTION_QA}, question building: two models that see"),
    ],
    "caprl_questions": [
        Number("step.ask_questions.vision_chat.name", "Qwen/Qwen2.5-VL-72B-Instruct", CAPRL_QUESTIONS),
        Number("step.ask_questions.vision_chat.temperature", 0.1, CAPRL_QUESTIONS),
        Number("step.ask_questions.num_questions", 5, CAPRL_QUESTIONS),
        Number("vision_chat.name", "Qwen/Qwen2.5-VL-3B-Instruct", CAPRL_QUESTIONS),
        Number("vision_chat.temperature", 0.1, CAPRL_QUESTIONS),
        Number("vision_chat.max_tokens", 4, CAPRL_QUESTIONS),
        Number("step.filter_questions.rotations", 4, f"{CAPRL_QUESTIONS}: ROTATE_NUM"),
        Number("step.filter_questions.max_without", 0.25, CAPRL_QUESTIONS),
        Number("step.filter_questions.min_with", 0.75, CAPRL_QUESTIONS),
    ],
    "caprl": [
        Number("model.name", "Qwen/Qwen2.5-VL-3B-Instruct", CAPRL_PAPER),
        Number("model.question", "Please describe this image in detail.", CAPRL_PAPER),
        Number("objective.num_samples", 8, CAPRL_PAPER),
        Number("objective.rollout.temperature", 1.0, CAPRL_PAPER),
        Number("data.batch_size", 128, CAPRL_PAPER),
        Number("max_epochs", 3, CAPRL_PAPER),
        Number("optimizer.lr", 1e-5, CAPRL_PAPER),
        Number("reward.question_answering.weight", 2.0, CAPRL_PAPER),
        Number("reward.question_answering.scorer.num_questions", 8, CAPRL_PAPER),
        Number("reward.question_answering.scorer.draw", "caption", CAPRL_PAPER, "picture", 5),
        Number("reader.model.model", "Qwen/Qwen2.5-3B-Instruct", CAPRL_PAPER),
        Number("reader.model.temperature", 0.6, CAPRL_PAPER),
        Number("reader.model.max_tokens", 10, CAPRL_PAPER),
    ],
    "dico": [
        Number("objective.rollout.num_beams", 5, DICO),
        Number("objective.num_samples", 5, DICO),
        Number("objective.beta", 0.2, DICO),
        Number("objective.tau", 300.0, DICO),
        Number("reward.pac_score.scorer.weight", 2.0, DICO),
        Number("metric.pac_score.weight", 2.0, DICO),
        Number("optimizer.lr", 1e-6, DICO),
        Number("data.batch_size", "8 images a GPU", DICO, 8, 2),
        Number("trainer.precision", "16-mixed", DICO),
        Number("trainer.strategy.stage", 2, DICO),
        Number("callback.checkpoints.select", "max pac_score_ref", f"{DICO}: selected by RefPAC-S"),
    ],
    "feedquill": [
        Number("model.name", "llava-hf/llava-1.5-7b-hf", YE),
        Number("reward.rater_true_claims.weight", 1.0, f"{YE}: as remembered"),
        Number("reward.rater_num_true_claims.weight", 0.5, f"{YE}: as remembered"),
        Number("model.image_size", 336, "Liu et al. 2023: LLaVA-1.5's tower"),
    ],
    "feedquill_rater": [Number("objective.center", 0.0, f"{YE}: Bradley-Terry")],
    "feedquill_dpo": [Number("model.name", "llava-hf/llava-1.5-7b-hf", YE)],
    "feedquill_verifier": [
        Number("model.name", "llava-hf/llava-1.5-7b-hf", YE),
        Number("reward.num_true_claims.weight", "0.5 of the rater's score", f"{YE}: as remembered", 0.1, 6),
    ],
    "qwen_sft": [
        Number("model.name", "Qwen/Qwen2.5-VL-7B-Instruct", LLAMA_FACTORY),
        Number("model.image_size", "the picture's sides, 262144 pixels at most", LLAMA_FACTORY, 504, 2),
        Number("model.lora.rank", 8, LLAMA_FACTORY),
        Number("data.batch_size", 8, f"{LLAMA_FACTORY}: 1 x 8 accumulated"),
        Number("optimizer.lr", 1e-4, LLAMA_FACTORY),
        Number("scheduler.warmup", 0.1, LLAMA_FACTORY),
        Number("max_epochs", 3, LLAMA_FACTORY),
    ],
    "qwen_grpo_caption": [
        Number("model.name", "Qwen/Qwen2.5-VL-3B-Instruct", TRL_VLM),
        Number("model.lora.rank", 16, TRL_DEFAULTS),
        Number("model.lora.alpha", 32, TRL_DEFAULTS),
        Number("model.lora.dropout", 0.05, TRL_DEFAULTS, 0.0, 5),
        Number("model.lora.targets", ["q_proj", "v_proj"], TRL_VLM),
        Number("optimizer.lr", 1e-5, TRL_VLM),
        Number("objective.num_samples", 8, TRL_DEFAULTS),
        Number("objective.rollout.temperature", 1.0, TRL_DEFAULTS),
        Number("objective.rollout.max_length", 1024, TRL_VLM, 256, 2),
        Number("objective.clip_low", 0.2, TRL_DEFAULTS),
        Number("objective.kl_weight", 0.0, TRL_DEFAULTS),
    ],
    "promptcap": [
        Number("decoding.num_beams", 5, PROMPTCAP),
        Number("decoding.no_repeat_ngram_size", 3, PROMPTCAP),
        Number("decoding.max_length", 100, PROMPTCAP),
        Number("model.image_encoder.name", "OFA large", PROMPTCAP, "openai/clip-vit-large-patch14", 1),
    ],
    "prism": [
        Number("text_lm.model", "internlm/CapRL-Eval-3B", CAPRL),
        Number("text_lm.temperature", 1.0, CAPRL),
        Number("text_lm.top_p", 1.0, CAPRL),
        Number("text_lm.max_tokens", 2048, CAPRL),
    ],
}

# Experiments at paper size that take no number from a publication, and why.
NOTHING_PUBLISHED = {
    "text_matching": "the paper's text was not at hand, only its abstract, which has no setting",
    "lora_text_encoder": "LoRA's paper tunes language models: the setting is ours",
}


@functools.cache
def composed(experiment: str) -> dict[str, Any]:
    config = compose_config(parse([f"experiment={experiment}"])).config
    return with_defaults(OmegaConf.to_container(config, throw_on_missing=False))


def at(config: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; a KeyError where the config and the constructors have none."""
    node: Any = config
    for word in key.split("."):
        if not isinstance(node, dict) or word not in node:
            raise KeyError(key)
        node = node[word]
    return node


def is_same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-9)
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def differences(config: dict[str, Any], numbers: list[Number]) -> list[str]:
    """A line for each number that the config does not have as wanted."""
    found = {number.key: at(config, number.key) for number in numbers}
    return [
        f"{number.key} is {found[number.key]!r}, wanted {number.wanted!r} ({number.source})"
        for number in numbers
        if not is_same(found[number.key], number.wanted)
    ]


def header(experiment: str) -> str:
    """The comments that open an experiment's yaml, and of those whose deviations it shares."""
    text = (config_dir() / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    comments = "\n".join(line for line in lines if line.startswith("#"))
    bases = re.findall(r"those of experiment=(\w+)", comments)
    return "\n".join([comments, *map(header, bases)])


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_an_experiment_has_the_published_numbers(experiment):
    assert differences(composed(experiment), PUBLISHED[experiment]) == []


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_a_number_that_differs_is_a_deviation_that_the_experiment_lists(experiment):
    deviations = header(experiment).partition("Deviations")[2]
    for number in PUBLISHED[experiment]:
        assert number.source
        if number.deviation is not None:
            assert f"({number.deviation})" in deviations, number
            assert number.ours != number.published


def test_no_experiment_at_paper_size_is_left_out():
    shipped = {path.stem for path in (config_dir() / "experiment").glob("*.yaml")}
    ours = {name for name in shipped if name.endswith("_sceneworld") or "stamps" in name}
    assert shipped - ours == {*PUBLISHED, *NOTHING_PUBLISHED}


BREAKS = {
    "mocha": ("objective.kl_weight", 0.6),
    "ndlb_bagcurri": ("curriculum.stages", {20: "hard-2", **{k: v for k, v in BAGS.items() if k != 20}}),
    "clip_reward": ("reward.clip_score.weight", 0.02),
    "camu": ("optimizer.lr", 1e-2),
    "discritune": ("optimizer.lr", 1e-4),
    "sentence_gru": ("objective.terms.ranking_hinge.margin", 2.0),
    "sync": ("step.reassign_images.num_images", 10),
    "embodied_captioner": ("objective.weight", 1.0),
}


@pytest.mark.parametrize("experiment", BREAKS)
def test_a_wrong_number_is_seen(experiment):
    key, value = BREAKS[experiment]
    broken = copy.deepcopy(composed(experiment))
    parent, _, word = key.rpartition(".")
    at(broken, parent)[word] = value
    (line,) = differences(broken, PUBLISHED[experiment])
    assert line.startswith(f"{key} is ")
