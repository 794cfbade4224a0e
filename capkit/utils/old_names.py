"""Old names of classes, functions, keys and arguments, and what they are called now; see `renamed`."""

# Classes and functions that have left their module, or changed their own name.
_NAMES = """
callbacks.guard.Guard train.callbacks.guard.SkipBadSteps
callbacks.guide.Guide train.callbacks.curriculum.CurriculumFeedback
callbacks.memory.Memory train.callbacks.oom.OOMBackoff
checkpoint.files.checkpoints_in checkpoint.run_checkpoints.checkpoints_in
checkpoint.files.clean_up checkpoint.run_checkpoints.clean_up
checkpoint.files.find_newest checkpoint.run_checkpoints.find_newest
checkpoint.files.free_slot checkpoint.run_checkpoints.free_slot
checkpoint.files.newest_checkpoint checkpoint.run_checkpoints.newest_checkpoint
checkpoint.files.point_best_to checkpoint.run_checkpoints.point_best_to
checkpoint.files.resolve_checkpoint checkpoint.run_checkpoints.resolve_checkpoint
checkpoint.files.Skipped checkpoint.run_checkpoints.Skipped
checkpoint.files.step_of checkpoint.run_checkpoints.step_of
checkpoint_files.discard checkpoint.files.remove_checkpoint
checkpoint_files.problem checkpoint.files.check_integrity
checkpoint_files.switch checkpoint.run_checkpoints.point_best_to
checkpoint_files.verified checkpoint.run_checkpoints.resolve_checkpoint
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
evaluators.evaluator.quoted_with models.dual_encoders.base.provenance
halving.half fault_tolerance.oom.halve
halving.in_parts fault_tolerance.oom.map_in_chunks
halving.until_it_fits fault_tolerance.oom.retry_on_oom
exported.Part checkpoint.export_parts.Part
exported.as_vision_text_model checkpoint.export_parts.as_vision_text_model
exported.load_exported checkpoint.export_reader.load_exported
exported.parts_of checkpoint.export_parts.parts_of
exported.read_export checkpoint.export_reader.read_export
keyed.key_id utils.rng.stable_hash
llm.base.SampledVisionChat llm.base.ChatModel
llm.base.TextLM llm.base.ChatModel
llm.base.VisionChat llm.base.ChatModel
llm.cache.CachedModel llm.asker.Asker
llm.cache.Unparsable llm.replies.Unparsable
llm.huggingface.HFTextLM llm.huggingface.HFChat
llm.huggingface.HFVisionChat llm.huggingface.HFChat
llm.replies.JSONField llm.json_replies.JSONField
llm.replies.JSONObject llm.json_replies.JSONObject
llm.replies.Numbered llm.json_replies.Numbered
llm.replies.ObjectList llm.json_replies.ObjectList
llm.replies.TextList llm.json_replies.TextList
llm.replies.Boxed llm.marked_replies.Boxed
llm.replies.NumberedLines llm.marked_replies.NumberedLines
llm.replies.Tagged llm.marked_replies.Tagged
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
models.encoders.image.ImageTokens models.encoders.image_tokens.ImageTokens
models.encoders.image.attributes_of models.encoders.image_tokens.attributes_of
models.encoders.image.encoder_width models.encoders.image_tokens.encoder_width
models.encoders.image.frozen_features models.encoders.image_tokens.frozen_features
models.encoders.image.image_features models.encoders.image_tokens.image_features
models.encoders.image.image_tokens models.encoders.image_tokens.image_tokens
models.hf_families.heed_image_mask models.captioners.hf_families.apply_image_mask
models.pair_model.PairModel models.dual_encoders.trainable.TrainableDualEncoder
models.pretrained.freeze_unread models.pretrained.freeze_without_gradient
models.tuning.policy.eval_frozen models.tuning.frozen.eval_frozen
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
run_folder.flatten run.changes.flatten
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
slurm.requeue_job fault_tolerance.slurm_requeue.requeue_job
tasks.fit.evaluate_split train.evaluation.evaluate_split
training_step.OptimizerStep train.train_module.TrainModule
types.Objective objectives.base.Objective
types.PairObjective objectives.base.PairObjective
types.Scorer scorers.base.Scorer
watch.channel.Beat fault_tolerance.heartbeats.Heartbeat
watch.channel.Channel fault_tolerance.heartbeats.HeartbeatFiles
watch.watchdog.those_at_fault fault_tolerance.watchdog.stalled_ranks
metrics.coco.bleu.Bleu metrics.coco.collected.Bleu
metrics.coco.cider.Cider metrics.coco.collected.Cider
metrics.coco.meteor.Meteor metrics.coco.collected.Meteor
metrics.coco.rouge.RougeL metrics.coco.collected.RougeL
metrics.coco.spice.Spice metrics.coco.collected.Spice
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
