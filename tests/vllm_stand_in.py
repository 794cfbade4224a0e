"""A stand-in for vLLM's OpenAI-compatible server, on loopback: its paths, fields and refusals, on plain transformers.

It knows nothing of capkit's models: a transformers model and its processor read the request, adapters come from peft's
files, and each token is drawn from the softmax of the last logits. As strict as vLLM or stricter: a field that is not
listed is refused, where vLLM ignores those that it does not know.
"""

import base64
import copy
import io
import json
import threading
import traceback
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from capkit.testing.stand_in_server import Reply, StandInServer

FIELDS = {
    "model", "messages", "n", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "min_tokens", "ignore_eos", "stop_token_ids", "logprobs", "top_logprobs",
    "return_token_ids", "add_special_tokens", "seed",
}  # fmt: skip
# What a published generation_config.json brings, and vLLM takes where a request says nothing.
OF_THE_MODEL = {"temperature": 1e-6, "top_p": 0.001, "top_k": 1, "repetition_penalty": 1.05}


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class VLLMStandIn(StandInServer):
    """Serves `network` with `processor` under `name`.

    `updates`: whether adapters may be loaded while it runs. `logprobs_mode`: processed_logprobs or raw_logprobs.
    `faults`: paths whose next requests fail with these replies. `asked`: bodies of chat completions, with `key`.
    `keeps_old_weights`: answers under new names with the first adapters that it got. `away_after`: so many chat
    completions are answered, and none behind them. `lost`: paths whose next request is done, and its reply lost.
    """

    def __init__(self, network, processor, name="base", updates=True, max_lora_rank=16, key=None, port=0):
        super().__init__(port=port)
        self.network, self.processor, self.name = copy.deepcopy(network).eval(), processor, name
        self.updates, self.max_lora_rank, self.key = updates, max_lora_rank, key
        self.adapters, self.loaded, self.asked, self.faults = {}, [], [], {}
        self.logprobs_mode, self.keeps_old_weights = "processed_logprobs", False
        self.changes, self.away_after, self.lost = (lambda reply: reply), None, []
        self._one = threading.Lock()

    # -- HTTP

    def reply_to(self, path, key, body):
        return self._answered(path, key, body)

    def reply_to_get(self, path, key):
        return self._answered(path, key, None)

    def _answered(self, path, key, body):
        with self._one:
            if self.faults.get(path):
                return self.faults[path].pop(0)
            if path == "/v1/chat/completions" and self.away_after is not None and len(self.asked) >= self.away_after:
                return Reply("away", 503)
            self.requests.append({"path": path, "key": key, "body": body})
            try:
                if self.key is not None and key != f"Bearer {self.key}":
                    raise Refused(401, f"Unauthorized: {key}")
                work = {
                    "/v1/models": self._models,
                    "/v1/chat/completions": self._complete,
                    "/v1/load_lora_adapter": self._load if self.updates else None,
                    "/v1/unload_lora_adapter": self._unload if self.updates else None,
                }.get(path)
                if work is None:
                    raise Refused(404, "Not Found")
                reply = work(body)
            except Refused as refused:
                return Reply(json.dumps({"error": {"message": str(refused), "code": refused.status}}), refused.status)
            except Exception:
                return Reply(traceback.format_exc()[-290:], 400)
            if path in self.lost:
                self.lost.remove(path)
                return Reply("", ending="drop")
        return Reply(reply if isinstance(reply, str) else json.dumps(self.changes(reply)))

    # -- models

    def _models(self, body):
        cards = [{"id": self.name, "root": self.name, "parent": None}]
        cards += [{"id": name, "root": path, "parent": self.name} for name, (path, _) in self.adapters.items()]
        return {"object": "list", "data": cards}

    def _load(self, body):
        if set(body) - {"lora_name", "lora_path", "load_inplace"}:
            raise Refused(400, f"unknown fields {sorted(body)}")
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not Path(path, "adapter_config.json").is_file():
            raise Refused(404, f"No adapter found for {path}")
        config = json.loads(Path(path, "adapter_config.json").read_text())
        if config["peft_type"] != "LORA" or config["r"] > self.max_lora_rank:
            raise Refused(500, f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_lora_rank}.")
        weights = self._with_adapters(config, load_file(Path(path, "adapter_model.safetensors")))
        if self.keeps_old_weights and self.loaded:
            weights = self.loaded[0][1]
        self.adapters[name] = (path, weights)
        self.loaded.append((name, weights))
        return f"Success: LoRA adapter '{name}' added successfully."

    def _with_adapters(self, config, tensors):
        """The network with W + alpha / r B A in the place of every adapted W."""
        network, left = copy.deepcopy(self.network), dict(tensors)
        for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
            layer = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            if not {"language_model", "text_model"} & set(layer.split(".")):
                raise Refused(500, f"expected target modules of the language model but received {layer}")
            down, up = left.pop(key), left.pop(key.replace("lora_A", "lora_B"))
            network.get_submodule(layer).weight.data += config["lora_alpha"] / config["r"] * up @ down
        if left:
            raise Refused(500, f"unexpected tensors {sorted(left)}")
        return network

    def _unload(self, body):
        if body["lora_name"] not in self.adapters:
            raise Refused(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        del self.adapters[body["lora_name"]]
        return "Success: removed."

    # -- captions

    def _complete(self, body):
        if unknown := set(body) - FIELDS:
            raise Refused(400, f"unknown fields {sorted(unknown)}")
        if body["model"] != self.name and body["model"] not in self.adapters:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        self.asked.append(body)
        network = self.network if body["model"] == self.name else self.adapters[body["model"]][1]
        inputs = self._read(body)
        choices = [self._caption(network, inputs, body, number) for number in range(body["n"])]
        prompt = inputs["input_ids"][0].tolist() if body.get("return_token_ids") else None
        return {"model": body["model"], "choices": choices, "prompt_token_ids": prompt}

    def _read(self, body):
        (message,) = [message for message in body["messages"] if message["role"] == "user"]
        content = []
        for part in message["content"]:
            if part["type"] == "image_url":
                kind, _, data = part["image_url"]["url"].partition(",")
                assert kind == "data:image/png;base64"
                part = {"type": "image", "image": Image.open(io.BytesIO(base64.b64decode(data)))}
            content.append(part)
        messages = [{**m, "content": content} if m is message else m for m in body["messages"]]
        settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return self.processor.apply_chat_template(messages, **settings)

    @torch.no_grad()
    def _caption(self, network, inputs, body, number):
        settings = {**OF_THE_MODEL, **body}
        plain = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
        if odd := [key for key, value in plain.items() if settings[key] != value]:
            raise Refused(400, f"the stand-in samples from all tokens, asked for {odd}")
        ends = [*body["stop_token_ids"], *([] if body.get("ignore_eos") else [0])]
        draw = Draw(settings["temperature"], body.get("seed", 0) + number, self.logprobs_mode == "processed_logprobs")
        config = GenerationConfig(max_new_tokens=body["max_tokens"], do_sample=False, eos_token_id=ends, pad_token_id=0)
        out = network.generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([draw]))
        ids = out[0, inputs["input_ids"].shape[1] :].tolist()
        assert ids == draw.ids
        content = [{"token": str(token), "logprob": value} for token, value in zip(ids, draw.logprobs, strict=True)]
        return {
            "index": number,
            "message": {
                "role": "assistant",
                "content": self.processor.tokenizer.decode(ids, skip_special_tokens=True),
            },
            "finish_reason": "stop" if ids[-1] in ends else "length",
            "logprobs": {"content": content} if body.get("logprobs") else None,
            "token_ids": ids if body.get("return_token_ids") else None,
        }


class Draw(LogitsProcessor):
    """Draws a token of a row, leaves `generate` no other, and keeps its log-probability."""

    def __init__(self, temperature, seed, processed):
        self.temperature, self.processed = temperature, processed
        self.generator = torch.Generator().manual_seed(seed)
        self.ids, self.logprobs = [], []

    def __call__(self, input_ids, scores):
        raw = scores[0].double().log_softmax(-1)
        tempered = (raw / (self.temperature or 1.0)).log_softmax(-1)
        is_greedy = self.temperature == 0
        token = int(raw.argmax() if is_greedy else tempered.exp().multinomial(1, generator=self.generator))
        self.ids.append(token)
        self.logprobs.append(float((tempered if self.processed else raw)[token]))
        return torch.full_like(scores, -torch.inf).index_fill_(-1, torch.tensor([token]), 0.0)
