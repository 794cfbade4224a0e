"""The policy's adapters as a server gets them: one folder a version, under a name that its weights give it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.models.tuning.lora import save_adapters
from capkit.train.rl.vllm_client import VLLMClient
from capkit.utils.rng import stable_hash

_WRITING = "writing"


class AdapterVersions:
    """Keeps the newest version of a run's adapters on a server, and in `folder`, which the server must see as well.

    A version's name holds a digest of its weights and their scale, so that a reply which names its model says with
    which weights it was written. A name is never given to other weights: vLLM's prefix cache tells adapters apart by
    name, and would mix the keys and values of two (its issue 42125 on `load_inplace`).
    """

    def __init__(self, client: VLLMClient, base: str, folder: Path) -> None:
        self._client, self._base, self.folder = client, base, folder.absolute()
        self._prefix = f"capkit-{stable_hash(str(self.folder)) & 0xFFFFFFFF:08x}-"

    def publish(self, model: Any) -> str:
        """Save the model's adapters and have the server load them; their name there.

        Versions before are unloaded first: a server needs room for one. Raises UsageError where the server does not
        say afterwards that it has these adapters.
        """
        name = self._save(model)
        known = self._client.models()
        if name not in known:
            for other in known:
                if other.startswith(self._prefix):
                    self._client.unload_adapter(other)
            self._client.load_adapter(name, str(self.folder / name))
            known = self._client.models()
        card = known.get(name, {})
        found = card.get("root"), card.get("parent")
        if found != (str(self.folder / name), self._base):
            raise UsageError(
                f"expected {self._client.url} to answer as {name} by the adapters in {self.folder / name} on "
                f"{self._base}, got {found[0]} on {found[1]}; run one API server process (vllm serve "
                "--api-server-count 1), and nothing else that loads adapters under this run's names"
            )
        for old in self.folder.glob(f"{self._prefix}*"):
            if old.name != name:
                shutil.rmtree(old)
        return name

    def _save(self, model: Any) -> str:
        writing = self.folder / _WRITING
        shutil.rmtree(writing, ignore_errors=True)
        save_adapters(model, writing)
        weights = hashlib.sha256((writing / "adapter_model.safetensors").read_bytes())
        config = json.loads((writing / "adapter_config.json").read_text())
        weights.update(str([config["r"], config["lora_alpha"]]).encode())  # weights alone do not tell their scale
        digest = weights.hexdigest()[:16]
        name = f"{self._prefix}{digest}"
        if (self.folder / name).is_dir():  # the same weights: a step that was left out, or a run that goes on
            shutil.rmtree(writing)
        else:
            writing.rename(self.folder / name)
        return name
