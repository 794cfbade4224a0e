"""Breaks in what makes updates, rewards and encoders fast, and in what measures it."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "the chooser's uniforms are those of the position before",
        "capkit/utils/rng.py",
        "step: int | Tensor = (position + 1) * _signed(_GOLDEN)",
        "step: int | Tensor = position * _signed(_GOLDEN)",
        ("tests/utils/test_rng.py::test_positions_in_a_tensor_give_what_each_gives",),
    ),
    Break(
        "spaces that a tokenizer cleans up stay",
        "capkit/upstream/transformers.py",
        "if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.clean_up_tokenization_spaces:",
        "if not isinstance(tokenizer, PreTrainedTokenizerFast):",
        ("tests/text/test_text.py::test_texts_are_those_that_the_tokenizer_decodes_one_by_one",),
    ),
    Break(
        "update: the padding of the head has probability",
        "capkit/models/captioners/head_losses.py",
        "    logits[:, vocab_size:] = -torch.inf\n",
        "    pass\n",
        ("tests/models/captioners/test_head_losses.py",),
    ),
    Break(
        "update: the target is not taken off the softmax",
        "capkit/models/captioners/head_losses.py",
        "    return slopes.mul_(scale[:, None]).scatter_(1, targets[:, None], of_target[:, None])\n",
        "    return slopes.mul_(scale[:, None])\n",
        ("tests/models/captioners/test_head_losses.py",),
    ),
    Break(
        "update: 1 - p through p in 16 bits",
        "capkit/models/captioners/head_losses.py",
        "    return slopes.mul_(scale[:, None]).scatter_(1, targets[:, None], of_target[:, None])\n",
        "    slopes, rounded = slopes.mul_(scale[:, None]).bfloat16(), -scale[:, None].bfloat16()\n"
        "    return slopes.scatter_add_(1, targets[:, None], rounded).float()\n",
        ("tests/models/captioners/test_head_losses.py::test_a_sure_token_keeps_its_small_gradient_in_bfloat16",),
    ),
    Break(
        "update: temperature missing in the gradient",
        "capkit/models/captioners/head_losses.py",
        "        scale, floor = gradient / temperature, ",
        "        scale, floor = gradient, ",
        ("tests/models/captioners/test_head_losses.py",),
    ),
    Break(
        "update: only the last chunk's gradient of the head",
        "capkit/models/captioners/head_losses.py",
        "                of_weight = of_weight.add_(part) if number else part\n",
        "                of_weight = part\n",
        ("tests/models/captioners/test_head_losses.py",),
    ),
    Break(
        "update: logits that the first backward pass wrote over are read by the second",
        "capkit/models/captioners/head_losses.py",
        "        kept, ctx.logits = ctx.logits, None\n",
        "        kept = ctx.logits\n",
        (
            "tests/models/captioners/test_head_losses.py"
            "::test_a_second_backward_pass_computes_logits_that_the_first_wrote_over_again",
        ),
    ),
    Break(
        "update: kernels with other numbers are used",
        "capkit/models/captioners/head_losses.py",
        "        if all(number < 1 for number in differences):",
        "        if max(differences) < 1:",
        ("tests/models/captioners/test_head_losses.py::test_kernels_that_give_other_numbers_are_told_and_not_used",),
    ),
    Break(
        "update: layers' keys and values share the first layer's weight in the gradient",
        "capkit/models/products.py",
        "torch.cat(weights), ctx.types[0])",
        "torch.cat([weights[0][:1].expand_as(weight) for weight in weights]), ctx.types[0])",
        ("tests/models/test_products.py::test_outputs_and_gradients_are_those_of_the_layers",),
    ),
    Break(
        "update: sharded maps are read without being gathered",
        "capkit/models/products.py",
        "        and not is_sharded(layer.weight)\n",
        "",
        ("tests/models/test_products.py::test_other_layers_are_called_themselves",),
    ),
    Break(
        "update: an empty support at padding makes NaN",
        "capkit/models/captioners/logprobs.py",
        "            support = support.masked_fill(~mask[..., None], 255).flatten(0, -2)\n",
        "            support = support.flatten(0, -2)\n",
        ("tests/models/captioners/test_head_losses.py::test_log_probabilities_of_a_gpu_equal_those_of_a_cpu",),
    ),
    Break(
        "update: the flag does not reach a fused optimizer",
        "capkit/distributed/strategies.py",
        "    inner.found_inf = skipped.float()\n",
        "    inner.found_inf = torch.zeros_like(skipped, dtype=torch.float32)\n",
        ("tests/distributed/test_leaving_out.py",),
    ),
    Break(
        "update: the learning rate is set before late counts are in",
        "capkit/train/train_module.py",
        "        self._settle(self._num_known)\n        self._set_learning_rate(",
        "        self._set_learning_rate(",
        ("tests/train/test_told_later.py",),
    ),
    Break(
        "update: late numbers of the last step are lost",
        "capkit/train/train_module.py",
        "        if self.global_step >= self.trainer.max_steps:\n            self.settle()\n",
        "        if self.global_step > self.trainer.max_steps:\n            self.settle()\n",
        ("tests/train/test_told_later.py::test_a_bad_last_step_is_counted_before_the_run_ends",),
    ),
    Break(
        "update: averages hold the steps that were left out",
        "capkit/train/callbacks/recorder.py",
        "            kept = torch.where(skipped, torch.zeros_like(value), value)\n",
        "            kept = value\n",
        ("tests/train/test_left_out_steps.py",),
    ),
    Break(
        "update: running statistics of a left-out step stay",
        "capkit/train/train_module.py",
        "            buffer.copy_(value if where is None else torch.where(where, value, buffer))\n",
        "            buffer.copy_(value if where is None else torch.where(where, buffer, value))\n",
        ("tests/train/test_left_out_steps.py",),
    ),
    Break(
        "update: features of an encoder that trains are shared",
        "capkit/models/encoders/image_tokens.py",
        "    if not isinstance(image_encoder, nn.Module) or trains(image_encoder):\n        return None\n",
        "    if not isinstance(image_encoder, nn.Module):\n        return None\n",
        (
            (
                "tests/train/test_ways_of_layers.py::test_features_are_not_kept_where_the_encoder_trains_"
                "or_there_are_some"
            ),
        ),
    ),
    Break(
        "update: the encoder reads the picture again",
        "capkit/train/rl/module.py",
        "        return replace(batch, features=torch.cat(parts)) if parts else batch\n",
        "        return batch\n",
        ("tests/train/test_ways_of_layers.py::test_a_frozen_encoder_reads_a_picture_once_a_step",),
    ),
    Break(
        "update: recomputed layers draw other dropout",
        "capkit/models/encoders/compile.py",
        "    return checkpoint(forward, *args, use_reentrant=False, **kwargs)\n",
        "    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)\n",
        ("tests/train/test_ways_of_layers.py::test_recomputed_layers_learn_the_same_with_dropout",),
    ),
    Break(
        "fixed shape repeats the first text, whose row then stands for the last",
        "capkit/models/batching.py",
        "places = torch.arange(rows).clamp(max=num_texts - 1)",
        "places = torch.arange(rows) % 1 + (torch.arange(rows) // rows)",
        ("tests/models/test_batching.py",),
    ),
    Break(
        "added columns count as tokens",
        "capkit/models/batching.py",
        "return torch.nn.functional.pad(tokens[places], pad), torch.nn.functional.pad(mask[places], pad)",
        ("return torch.nn.functional.pad(tokens[places], pad), torch.nn.functional.pad(mask[places], pad, value=True)"),
        ("tests/models/test_batching.py::test_added_columns_are_no_tokens",),
    ),
    Break(
        "pixels that travel take the places of all pictures",
        "capkit/scorers/image_embeddings.py",
        "given = dict(zip(pictures.places, ",
        "given = dict(zip(range(len(pictures.places)), ",
        ("tests/scorers/test_image_embeddings.py",),
    ),
    Break(
        "unseen pictures are asked for again in each epoch",
        "capkit/scorers/image_embeddings.py",
        "return [key for key in dict.fromkeys(keys) if key not in self._rows]",
        "return [*dict.fromkeys(keys)]",
        ("tests/scorers/test_image_embeddings.py",),
    ),
    Break(
        "pictures that arrived are not looked at",
        "capkit/data/datamodule.py",
        "return {name: unseen for name, unseen in wanted.items() if unseen}",
        "return {}",
        ("tests/data/test_viewers.py",),
    ),
    Break(
        "validation counts as waiting for data",
        "capkit/train/phases.py",
        "                if phase is not None:\n                    seconds[phase] += end.seconds_since(begin)",
        '                seconds[phase or "data"] += end.seconds_since(begin)',
        (
            (
                "tests/train/callbacks/test_throughput.py::test_time_belongs_to_the_phase_entered_last_an"
                "d_validation_to_none"
            ),
        ),
    ),
    Break(
        "a step is read before the device has passed it",
        "capkit/train/phases.py",
        "while self._steps and (wait or self._steps[0].marks[-1][1].is_there()):",
        "while self._steps:",
        ("tests/train/callbacks/test_throughput.py::test_steps_are_read_when_the_device_has_passed_them",),
    ),
    Break(
        "the matmul share leaves the image encoder out of the backward pass",
        "capkit/train/flop.py",
        "            torch.autograd.grad(output, weights, allow_unused=True)",
        "            pass",
        ("tests/train/callbacks/test_throughput.py",),
    ),
    Break(
        "overlapping kernels keep the device busy twice",
        "capkit/train/callbacks/profile.py",
        "span.end - max(span.start, until)",
        "span.end - span.start",
        ("tests/train/callbacks/test_profile.py::test_overlapping_kernels_keep_the_device_busy_once",),
    ),
    Break(
        "ties count as hits",
        "capkit/scorers/self_retrieval.py",
        "return torch.where(better == 0, 1 / tied.double(), 0.0)",
        "return torch.where(better == 0, 1.0, 0.0)",
        ("tests/scorers/test_self_retrieval.py",),
    ),
    Break(
        "what the host computes is scored before work is launched",
        "capkit/scorers/reward.py",
        "key=lambda item: not item[1].starts_first",
        "key=lambda item: item[1].starts_first",
        ("tests/train/rl/test_beside_the_update.py",),
    ),
    Break(
        "captions without a reward count into the deviation",
        "capkit/distributed/collectives.py",
        "(numbers - total / count).square().where(kept, 0.0).sum()",
        "(numbers - total / count).square().sum()",
        ("tests/train/rl/test_beside_the_update.py",),
    ),
    Break(
        "texts are counted before the update is launched",
        "capkit/train/rl/module.py",
        "            rollout, logs = self.rollout(batch, step)\n            parts = list(",
        (
            "            rollout, logs = self.rollout(batch, step)\n            logs |= self._host_num"
            "bers(rollout.samples)\n            parts = list("
        ),
        ("tests/train/rl/test_beside_the_update.py",),
    ),
    Break(
        "a batch keeps the pixels of its pictures",
        "capkit/train/rl/module.py",
        "        batch = replace(batch, pictures={})\n",
        "",
        ("tests/train/rl/test_beside_the_update.py",),
    ),
]
