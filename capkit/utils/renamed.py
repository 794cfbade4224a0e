"""Old names of modules, classes and arguments: still importable, with a FutureWarning, and mended in what was saved.

`python -m capkit.utils.renamed FOLDER ...` rewrites, in place, imports and `_target_`s of your own Python files, yamls
and documents.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)
GONE_IN = "0.3"  # the version that no longer knows the old names

# Modules of version 0.1 and what they are called now, both within capkit.
_MODULES = """
bag_report reports.bags
callbacks train.callbacks
callbacks.checkpoints train.callbacks.checkpoints
callbacks.degeneration train.callbacks.degeneration
callbacks.guard train.callbacks.guard
callbacks.guide train.callbacks.curriculum
callbacks.memory train.callbacks.oom
callbacks.preemption train.callbacks.preemption
callbacks.progress train.callbacks.progress
callbacks.recorder train.callbacks.recorder
callbacks.reward_spread train.callbacks.reward_spread
callbacks.selection run.selection
callbacks.watchdog train.callbacks.watchdog
caption_text text.caption_text
charts reports.charts
checkpoint checkpoint.loading
checkpoint_files checkpoint.files
checkpoint_io checkpoint.lightning_io
checksums utils.checksums
console utils.console
curricula data.curricula
curricula.bag_files data.curricula.bag_files
curricula.bags data.curricula.bags
curricula.curriculum data.curricula.base
curricula.levels data.curricula.levels
curricula.shuffle data.curricula.shuffle
curricula.stages data.curricula.stages
curricula.steps data.curricula.single_epoch
data.caption_files data.sources.caption_files
data.caption_tables data.sources.caption_tables
data.folder data.sources.folder
data.generic_captions sceneworld.sources.generic_captions
data.imagecode data.sources.imagecode
data.karpathy data.sources.karpathy
data.manifest data.sources.manifest
data.meme_batches methods.memes.datamodule
data.memes methods.memes.source
data.mismatched data.sources.mismatched
data.recolored_scenes sceneworld.sources.recolored
data.scene_memes methods.memes.scene_source
data.sceneworld sceneworld.sources.scenes
data.sentence_pairs data.sources.sentence_pairs
data.source data.sources.base
data.stamps data.sources.stamps
data.steps curation.steps
data.steps.align_filter curation.steps.align_filter
data.steps.blend_captions curation.steps.blend_captions
data.steps.caption_answers curation.caption_answers
data.steps.holistic_caption curation.steps.holistic_caption
data.steps.step curation.base
decoding.choose decoding.sampling
decoding.decoding decoding.config
decoding.support decoding.truncation
distributed distributed.collectives
edits text.corruption
embedding_cache utils.embedding_cache
evaluation metrics.scoring
evaluators.evaluator evaluators.base
exported checkpoint.exported
file_modes utils.files
fit_loop upstream.lightning
halving fault_tolerance.oom
instantiate config.instantiate
keyed utils.rng
lamb optim.lamb
liveness fault_tolerance.liveness
llm.answers llm.cache
llm.chat llm.base
llm.scene_models sceneworld.llm
logged_names run.metric_names
loggers run.wandb_logger
meme_module methods.memes.module
metrics.fact_kinds sceneworld.metrics.fact_kinds
metrics.facts sceneworld.metrics.facts
metrics.judged_metric metrics.embedding_metric
metrics.language text.normalize
metrics.porter text.porter
metrics.ptb text.ptb
metrics.ptb.automaton text.ptb.automaton
metrics.ptb.characters text.ptb.characters
metrics.ptb.foreign text.ptb.foreign
metrics.ptb.grammar text.ptb.grammar
metrics.ptb.pattern text.ptb.pattern
metrics.ptb.plain text.ptb.plain
metrics.ptb.tokenizer text.ptb.tokenizer
metrics.scene_chair sceneworld.metrics.chair
metrics.texts text.checked
mining curation.mining
mining.chunk_files curation.mining.chunk_files
mining.grouping curation.mining.grouping
mining.neighbors curation.mining.neighbors
mining.running_top curation.mining.running_top
mining.search curation.mining.search
models.adapters models.tuning.lora
models.cached_encoder models.dual_encoders.cached
models.camu methods.memes.model
models.caption_scorer methods.memes.caption_choice
models.captioner models.captioners.base
models.clip_prefix models.captioners.clip_prefix
models.dual_encoder models.dual_encoders.hf_frozen
models.embedding utils.tensors
models.encoder_about models.dual_encoders.fingerprint
models.encoder_decoder models.captioners.encoder_decoder
models.ensemble models.dual_encoders.ensemble
models.grammar_head models.dual_encoders.grammar_head
models.headed_captioner models.captioners.headed
models.hf_captioner models.captioners.hf_captioner
models.hf_families models.captioners.hf_families
models.hf_two_tower models.dual_encoders.hf_two_tower
models.image_encoders models.encoders.image
models.layers models.tuning.layers
models.logit_scale models.dual_encoders.logit_scale
models.pair_model models.dual_encoders.trainable
models.sentence_encoder models.dual_encoders.sentence_encoder
models.speed models.encoders.compile
models.text_towers models.dual_encoders.text_towers
models.text_towers.bag_of_words models.dual_encoders.text_towers.bag_of_words
models.text_towers.bags models.dual_encoders.text_towers.bags
models.text_towers.char_gru models.dual_encoders.text_towers.char_gru
models.text_towers.conv models.dual_encoders.text_towers.conv
models.text_towers.hf models.dual_encoders.text_towers.hf
models.text_towers.ngrams models.dual_encoders.text_towers.ngrams
models.text_towers.protocol models.dual_encoders.text_towers.base
models.text_towers.tokenize models.dual_encoders.text_towers.tokenize
models.tuning models.tuning.policy
models.two_tower models.dual_encoders.two_tower
module train.mle_module
objectives.advantages objectives.policy.advantages
objectives.camu methods.memes.loss
objectives.comparisons objectives.contrastive.comparisons
objectives.diverse_heads objectives.contrastive.diverse_heads
objectives.info_nce objectives.contrastive.info_nce
objectives.kl objectives.policy.kl
objectives.pair_sum objectives.contrastive.pair_sum
objectives.pairs objectives.contrastive.pairs
objectives.policy objectives.policy.base
objectives.ppo objectives.policy.ppo
objectives.ranking_hinge objectives.contrastive.ranking_hinge
objectives.self_critical objectives.policy.self_critical
objectives.siglip objectives.contrastive.siglip
objectives.triplet objectives.contrastive.triplet
objectives.weighted_sum objectives.policy.weighted_sum
optim optim.optimizers
pair_module train.dual_encoder_module
planning distributed.cost_model
ranges utils.ranges
reference_policy train.rl.reference_policy
removal utils.removal
report reports.page
rl_module train.rl.module
rl_report reports.rl
rollout train.rl.rollout
rollout_numbers train.rl.rollout_stats
run_changes run.changes
run_folder run.folder
run_lock run.lock
scenes sceneworld
scenes.acceptance sceneworld.language.acceptance
scenes.bags sceneworld.world.bags
scenes.cache sceneworld.cache
scenes.classes sceneworld.world.classes
scenes.contradiction sceneworld.language.contradiction
scenes.facts sceneworld.language.facts
scenes.generic sceneworld.language.generic
scenes.glyphs sceneworld.world.glyphs
scenes.language sceneworld.language.captions
scenes.lexicon sceneworld.language.lexicon
scenes.memes sceneworld.memes
scenes.merging sceneworld.language.merging
scenes.noise sceneworld.language.noise
scenes.options sceneworld.world.options
scenes.oracles sceneworld.language.oracles
scenes.parser sceneworld.language.parser
scenes.plan sceneworld.language.plan
scenes.questions sceneworld.language.questions
scenes.render sceneworld.world.render
scenes.similarity sceneworld.language.similarity
scenes.stream sceneworld.world.stream
scenes.world sceneworld.world.scene
scenes.writing sceneworld.language.writing
schedules optim.schedules
scorers.bad_endings scorers.text_rules
scorers.bleu scorers.text_rules
scorers.facts sceneworld.scorers
scorers.length scorers.text_rules
scorers.nli_judges judges.nli
scorers.picture_scorer scorers.image_text
scorers.repetition scorers.text_rules
scorers.texts scorers.flatten
slurm distributed.slurm
stop_signal fault_tolerance.stop_signal
strategies distributed
strategies.build_locks distributed.build_locks
strategies.partitions distributed.zero_partitions
strategies.zero distributed.zero
tasks.build train.build
tasks.curated_folder curation.folder
tasks.dry_run train.dry_run
tasks.fit_memes methods.memes.task
tasks.generation train.evaluation
tasks.header train.header
tasks.image_features tasks.prepare
tasks.quiet utils.quiet
tasks.ranks distributed.launcher
tasks.resume checkpoint.resume
tasks.sanity train.sanity
tasks.score_files data.prediction_files
tasks.training train.session
testing testing.distributed
text text.tokenizers
text_files utils.text_files
tiny testing.models
training_step train.train_module
watch fault_tolerance
watch.channel fault_tolerance.heartbeats
watch.processes fault_tolerance.processes
watch.running fault_tolerance.watchdog
watch.stacks fault_tolerance.stack_traces
watch.watchdog fault_tolerance.watchdog
weights models.weights
"""
MODULES = {f"capkit.{old}": f"capkit.{new}" for old, new in (line.split() for line in _MODULES.split("\n") if line)}

# Classes and functions that have left their module, or changed their own name.
_NAMES = """
callbacks.guard.Guard train.callbacks.guard.SkipBadSteps
callbacks.guide.Guide train.callbacks.curriculum.CurriculumFeedback
callbacks.memory.Memory train.callbacks.oom.OOMBackoff
checkpoint_files.discard checkpoint.files.remove_checkpoint
checkpoint_files.problem checkpoint.files.check_integrity
checkpoint_files.switch checkpoint.files.point_best_to
checkpoint_files.verified checkpoint.files.resolve_checkpoint
data.manifest.Caption data.records.Caption
data.manifest.Record data.records.Record
data.manifest.Region data.records.Region
data.manifest.check_unique_keys data.records.check_unique_keys
data.manifest.parse_line data.records.parse_line
data.manifest.read_manifest data.records.read_manifest
data.manifest.record_from_row data.records.record_from_row
data.manifest.write_manifest data.records.write_manifest
distributed.RankRows distributed.collectives.UnevenGather
distributed.decided_by_rank_0 distributed.collectives.on_rank_zero
distributed.reaching_all distributed.collectives.touch_all_parameters
edits.split_words text.corruption.words_and_end
embedding_cache.check_about utils.store.check_about
embedding_cache.digest utils.store.digest
embedding_cache.fingerprint utils.store.fingerprint
evaluation.Row types.Row
evaluation.TextScore metrics.base.TextScore
evaluation.describe metrics.scoring.provenance
evaluators.evaluator.quoted_with evaluators.base.provenance
halving.half fault_tolerance.oom.halve
halving.in_parts fault_tolerance.oom.map_in_chunks
halving.until_it_fits fault_tolerance.oom.retry_on_oom
exported.Part checkpoint.export_parts.Part
exported.as_vision_text_model checkpoint.export_parts.as_vision_text_model
exported.load_exported checkpoint.export_reader.load_exported
exported.parts_of checkpoint.export_parts.parts_of
exported.read_export checkpoint.export_reader.read_export
keyed.key_id utils.rng.stable_hash
liveness.Doing fault_tolerance.liveness.Liveness
liveness.advance fault_tolerance.liveness.mark_progress
liveness.doing fault_tolerance.liveness.section
metrics.judged_metric.JudgedMetric metrics.embedding_metric.EmbeddingMetric
models.captioner.CHUNK_ELEMENTS models.captioners.logprobs.CHUNK_ELEMENTS
models.captioner.chunked_logprobs models.captioners.logprobs.chunked_logprobs
models.captioner.chunked_token_losses models.captioners.logprobs.chunked_token_losses
models.dual_encoder.DualEncoder models.dual_encoders.base.DualEncoder
models.dual_encoder.TraceableEncoder models.dual_encoders.base.CacheableEncoder
models.embedding.embed_distinct models.batching.embed_distinct
models.hf_families.heed_image_mask models.captioners.hf_families.apply_image_mask
models.pair_model.PairModel models.dual_encoders.trainable.TrainableDualEncoder
models.pretrained.freeze_unread models.pretrained.freeze_without_gradient
module.CaptionModule train.mle_module.MLEModule
module.WritingModule train.captioner_module.CaptionerModule
module.rows_of train.captioner_module.rows_of
pair_module.PairModule train.dual_encoder_module.DualEncoderModule
planning.Cluster distributed.cost_model.ClusterSpec
planning.Work distributed.cost_model.StepWorkload
planning.states distributed.cost_model.model_state_bytes
rollout.beside train.rl.rollout.concat_samples
rollout.join_images train.rl.rollout.concat_images
run_folder.add_to_file utils.files.add_to_file
run_folder.output_file utils.files.output_file
run_folder.unwritable utils.files.unwritable
run_folder.write_atomically utils.files.write_atomically
run_lock.hold run.lock.acquire_run_lock
scenes.world.WorldOptions sceneworld.world.options.WorldOptions
scorers.nli.ContradictionJudge judges.base.ContradictionJudge
scorers.nli_judges.SceneRules sceneworld.judges.SceneRules
scorers.reward.Term scorers.reward.RewardTerm
scorers.texts.Item models.batching.Item
scorers.texts.Result models.batching.Result
scorers.texts.in_places scorers.flatten.unflatten_scores
scorers.texts.of_distinct models.batching.map_unique
slurm.requeue_job fault_tolerance.stop_signal.requeue_job
tasks.fit.evaluate_split train.evaluation.evaluate_split
training_step.OptimizerStep train.train_module.TrainModule
types.Objective objectives.base.Objective
types.PairObjective objectives.base.PairObjective
types.Scorer scorers.base.Scorer
watch.channel.Beat fault_tolerance.heartbeats.Heartbeat
watch.channel.Channel fault_tolerance.heartbeats.HeartbeatFiles
watch.watchdog.those_at_fault fault_tolerance.watchdog.stalled_ranks
"""
NAMES = {f"capkit.{old}": f"capkit.{new}" for old, new in (line.split() for line in _NAMES.split("\n") if line)}
# Callbacks as checkpoints name them: by their class alone.
CALLBACKS = {"Guide": "CurriculumFeedback", "Guard": "SkipBadSteps", "Memory": "OOMBackoff"}
# Keys at the top of a config.
KEYS = {"judge": "reward_encoder", "judge2": "eval_encoder"}
# Those of one task alone: a task of a user's own may have a key of the same name.
TASK_KEYS = {"plan": {"share": "utilization"}}
# Arguments of constructors, by the name of today of their class.
ARGUMENTS = {
    f"capkit.{name}": {"judge": "encoder"}
    for name in (
        "metrics.bags.Bags",
        "metrics.clip_score.ClipScore",
        "metrics.imagecode.ImageCode",
        "metrics.retrieval.RandomDistractors",
        "metrics.retrieval.Retrieval",
        "scorers.clip_score.ClipScore",
        "scorers.clip_score.RefClipScore",
        "scorers.self_retrieval.SelfRetrieval",
    )
}


def takes_old_arguments(cls: Class) -> Class:
    """Decorate a class: its constructor takes keyword arguments by their old names too (ARGUMENTS), with a warning."""
    names = ARGUMENTS[f"{cls.__module__}.{cls.__qualname__}"]
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def with_new_names(self: Any, *args: Any, **kwargs: Any) -> None:
        for old, new in names.items():
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{cls.__name__}: expected {new}, got {new} and its old name {old}; keep {new}")
                warn_of_old_name(f"{cls.__name__}({old}=...)", f"{cls.__name__}({new}=...)")
                kwargs[new] = kwargs.pop(old)
        init(self, *args, **kwargs)

    cls.__init__ = with_new_names  # type: ignore[misc]
    return cls


def new_name(dotted: str) -> str:
    """The name of today of a module, or of something in one; as it is where nothing has changed."""
    if dotted in NAMES:
        return NAMES[dotted]
    words = dotted.split(".")
    for length in range(len(words), 1, -1):
        module = ".".join(words[:length])
        if module in MODULES and not _is_module(dotted, length):
            return ".".join([MODULES[module], *words[length:]])
    return dotted


def _is_module(dotted: str, length: int) -> bool:
    """Whether a name whose first words are an old module is one of today's: capkit.text is a folder now."""
    folder = Path(__file__).parents[2].joinpath(*dotted.split(".")[:length])
    words = dotted.split(".")[length:]
    return bool(words) and ((folder / f"{words[0]}.py").exists() or (folder / words[0]).is_dir())


def new_key(key: str, task: str = "") -> str:
    """The name of today of a config's key, as it is typed for a task: `metric.clip_score.judge.ckpt`."""
    head, *rest = key.split(".")
    if head in ("metric", "reward") and rest and not rest[0].startswith("nli"):
        rest = ["encoder" if word == "judge" else word for word in rest]
    return ".".join([(KEYS | TASK_KEYS.get(task, {})).get(head, head), *rest])


def renamed_config(config: Any) -> Any:
    """The config of an earlier run, as plain data, with keys, classes and arguments under their names of today."""
    if not isinstance(config, dict):
        return config
    return {KEYS.get(key, key): renamed_targets(value) for key, value in config.items()}


def renamed_targets(node: Any, tell: Callable[[str, str], None] | None = None) -> Any:
    """A config as plain data with classes and their arguments under their names of today.

    `tell` receives each old name of a class and its new one.
    """
    if isinstance(node, list):
        return [renamed_targets(value, tell) for value in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: renamed_targets(value, tell) for key, value in node.items()}
    target = node.get("_target_")
    if isinstance(target, str) and (new := new_name(target)) != target:
        renamed["_target_"] = new
        if tell is not None:
            tell(target, new)
    arguments = ARGUMENTS.get(renamed["_target_"], {}) if isinstance(target, str) else {}
    return {arguments.get(key, key): value for key, value in renamed.items()}


def renamed_state(checkpoint: Any) -> Any:
    """A checkpoint's plain data with the config in it, and what callbacks saved, under the names of today."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    renamed = dict(checkpoint)
    if isinstance(callbacks := checkpoint.get("callbacks"), dict):
        renamed["callbacks"] = {CALLBACKS.get(name, name): state for name, state in callbacks.items()}
    if isinstance(own := checkpoint.get("capkit"), dict) and "config" in own:
        renamed["capkit"] = {**own, "config": renamed_config(own["config"])}
    return renamed


def warn_of_old_name(old: str, new: str) -> None:
    """At the line of whoever used the old name, which called what calls this."""
    warnings.warn(f"{old} is now {new}; the old name works until capkit {GONE_IN}", FutureWarning, stacklevel=3)


class _OldModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules under their old names. It is asked last: for what exists it is not asked at all."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name, f"The old name of {MODULES[spec.name]}.")
        module.__dict__["__getattr__"] = moved_names(spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        warn_of_old_name(module.__name__, MODULES[module.__name__])


def find_old_modules() -> None:
    """From here on the old names of modules can be imported."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())


def moved_names(old_module: str) -> Callable[[str], Any]:
    """`__getattr__` of a module that has moved, or of a folder that has the name of an old module."""

    def __getattr__(name: str) -> Any:
        old = f"{old_module}.{name}"
        new = new_name(old)
        if name.startswith("__") or new == old:
            raise AttributeError(f"module {old_module!r} has no attribute {name!r}")
        module, _, leaf = new.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), leaf)
        except AttributeError:
            raise AttributeError(f"module {old_module!r} has no attribute {name!r}") from None
        warn_of_old_name(old, new)
        return found

    return __getattr__


_DOTTED = re.compile(r"(?<![\w./])capkit(?:\.[A-Za-z_]\w*)+")
_FROM = re.compile(r"^(?P<indent>[ \t]*)from (?P<module>capkit[\w.]*) import (?P<names>\([^)]*\)|[^\n(]*)$", re.M)


def rewritten(text: str) -> str:
    """A text whose names of capkit are those of today: `from` imports, and dotted names wherever they stand.

    A name that has changed within its module (`CaptionModule`, now `MLEModule`) keeps its old name by `as`.
    """

    def imports(match: re.Match[str]) -> str:
        new: dict[str, list[str]] = {}
        for item in match["names"].strip("()").replace("\n", " ").split(","):
            words = item.split()
            if not words:
                continue
            module, _, leaf = new_name(f"{match['module']}.{words[0]}").rpartition(".")
            alias = words[2] if len(words) == 3 else words[0]
            new.setdefault(module, []).append(leaf if leaf == alias else f"{leaf} as {alias}")
        return "\n".join(f"{match['indent']}from {module} import {', '.join(names)}" for module, names in new.items())

    text = _FROM.sub(imports, text)
    return _DOTTED.sub(lambda match: match.group() if _follows_from(match) else new_name(match.group()), text)


def _follows_from(match: re.Match[str]) -> bool:
    """Whether a dotted name is that of a `from` import, which is new already."""
    return match.string[max(0, match.start() - 5) : match.start()] == "from "


def files_in(folders: Sequence[str]) -> Iterator[Path]:
    for folder in map(Path, folders):
        found = folder.rglob("*") if folder.is_dir() else [folder]
        yield from (path for path in sorted(found) if path.suffix in (".py", ".yaml", ".yml", ".md", ".sh"))


def main(folders: Sequence[str]) -> None:
    for path in files_in(folders):
        text = path.read_text(encoding="utf-8")
        if (new := rewritten(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
