"""The model card of an export, and its upload to a hub, which is a stand-in on loopback."""

import json
import re
import shutil
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from capkit.checkpoint.files import write_checkpoint
from capkit.checkpoint.loading import checkpoint_extras, read_checkpoint
from capkit.config.instantiate import build
from capkit.errors import RunFailure, UsageError
from capkit.metrics.scoring import write_predictions
from capkit.models.weights import trainable_state
from capkit.reports.model_card import _FOLDERS, cell
from capkit.run.folder import RunFolder
from capkit.tasks import export
from capkit.text.tokenizers import word_tokenizer
from capkit.train.made_by import note_checkpoint

MODEL = {
    "_target_": "capkit.models.captioners.encoder_decoder.EncoderDecoder", "width": 16, "num_layers": 1, "num_heads": 2,
    "image_encoder": {"_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32, "width": 16},
}  # fmt: skip
TOKEN = "hf_a_secret_of_mine"


def settings(ckpt, out, **more):
    defaults = {"dtype": None, "license": None, "limits": None, "evaluated": None, "samples": 6}
    return OmegaConf.create({"ckpt": str(ckpt), "out": str(out), **defaults, "push_to": None, "public": False, **more})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose two checkpoints are of steps 1 and 3; it measured step 3."""
    folder = RunFolder(tmp_path_factory.mktemp("card") / "first")
    torch.manual_seed(0)
    model = build(OmegaConf.create(MODEL), tokenizer=word_tokenizer(["a red | ball"]))
    data = {"train": {"_target_": "capkit.data.sources.folder.Folder", "captions": "/home/me/dogs.csv"}}
    config = {"seed": 4, "model": MODEL, "data": data, "optimizer": {"lr": 0.25}, "reward": {"cider": {"weight": 2.0}}}
    folder.open(config)
    extras = checkpoint_extras(OmegaConf.create(config), model)
    for step in (1, 3):
        state = {f"model.{name}": value for name, value in trainable_state(model).items()}
        path = folder.path / "checkpoints" / f"step-{step:08d}.ckpt"
        write_checkpoint({"state_dict": state, "global_step": step, "capkit": extras}, path)
    measured(folder, 1.25)
    folder.write_metrics({"train/steps": 3, "train/seconds": 61.0, "test/shuffled/cider": 0.5})
    return folder.path


def measured(folder, cider):
    folder.write_metrics({"test/cider": cider, "val/cider": 9.0})
    (folder.path / "intervals.json").write_text(json.dumps({"cider": [cider - 0.125, cider + 0.125]}))
    rows = [
        {"key": f"p{n}", "caption": text, "references": ["a <b>red</b> | ball"], "metadata": {}}
        for n, text in enumerate(("a [red] ball", "a | ball\nof *mine*", "no"))
    ]
    write_predictions(folder.predictions, "test", rows)


def card_of(ckpt, out, **more):
    export.run(settings(ckpt, out, **more))
    text = (out / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_it_says_data_recipe_numbers_with_intervals_samples_limits_and_licence(run, tmp_path):
    more = {"license": "cc-by-4.0", "limits": "Not for street signs.", "samples": 2}
    head, body = card_of(run, tmp_path / "out", **more)
    assert head == {"library_name": "capkit", "license": "cc-by-4.0", "tags": ["capkit"]}
    parts = dict(part.split("\n", 1) for part in body.split("\n## ")[1:])
    assert list(parts) == ["Loading", "Data", "Recipe", "Metrics", "Samples", "Limits", "Licence"]
    assert parts["Data"].strip() == "Folder, dogs.csv"  # no folder of this machine
    recipe = dict(line[2:-2].split(" | ", 1) for line in parts["Recipe"].splitlines()[3:] if line)
    assert recipe["Steps"] == "3" and recipe["Learning rate"] == "0.25" and recipe["Seed"] == "4"
    assert recipe["Rewards"] == "cider (weight 2.0)" and recipe["Time"] == "1:01"
    head, row = (next(line for line in parts["Metrics"].splitlines() if word in line) for word in ("shuffled", "cider"))
    assert head.startswith("| | test | test/shuffled | ") and "9.0" not in parts["Metrics"]
    assert row.startswith("| cider | 1.250 (1.125 to 1.375) | 0.500 | CIDEr-D: ")
    samples = [line for line in parts["Samples"].splitlines() if re.match(r"\| p\d", line)]
    assert samples[0] == r"| p0 | a \[red\] ball | a \<b\>red\</b\> \| ball |"
    assert samples[1].startswith(r"| p1 | a \| ball of \*mine\* |") and len(samples) == 2
    assert parts["Limits"].startswith("\nNot for street signs.") and "The weights: cc-by-4.0." in parts["Licence"]


def test_numbers_of_another_step_are_not_shown(run, tmp_path):
    _, body = card_of(run / "checkpoints/step-00000001.ckpt", tmp_path / "out")
    assert "Not measured: the run measured step 3, these are the weights of step 1." in body
    assert "1.250" not in body and "a \\[red\\] ball" not in body
    assert "Not stated: ask whoever gave you the weights." in body


def test_numbers_come_from_a_run_of_evaluate_of_this_very_checkpoint(run, tmp_path):
    first, last = (run / f"checkpoints/step-0000000{step}.ckpt" for step in (1, 3))
    folder = RunFolder(tmp_path / "evaluated")
    folder.open({"seed": 0, "ckpt": str(first)})
    with pytest.raises(UsageError, match=r"expected numbers of .*00001.ckpt, got those of other weights, of .*00001"):
        measured(folder, 3.5)
        export.run(settings(first, tmp_path / "out", evaluated=str(folder.path)))
    note_checkpoint(folder.path, first)
    assert folder.metrics() == {}  # whose weights' they were is not known
    measured(folder, 3.5)
    _, body = card_of(first, tmp_path / "out", evaluated=str(folder.path))
    assert "| cider | 3.500 (3.375 to 3.625) |" in body
    with pytest.raises(UsageError, match=r"expected numbers of .*00003.ckpt, got those of other weights, of .*00001"):
        export.run(settings(last, tmp_path / "other", evaluated=str(folder.path)))
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="expected a run of `evaluate` with its numbers of the test split, got none"):
        export.run(settings(last, tmp_path / "other", evaluated=str(run)))


def test_a_run_that_trained_on_since_it_was_evaluated_has_other_weights(run, tmp_path):
    """Evaluated by the run's folder, which names its newest checkpoint: later another one."""
    trained = tmp_path / "first"
    shutil.copytree(run, trained)
    evaluated = RunFolder(tmp_path / "evaluated")
    evaluated.open({"seed": 0, "ckpt": str(trained)})
    note_checkpoint(evaluated.path, trained)
    measured(evaluated, 3.5)
    assert "| cider | 3.500 (" in card_of(trained, tmp_path / "before", evaluated=str(evaluated.path))[1]
    later = read_checkpoint(trained) | {"global_step": 7}
    write_checkpoint(later, trained / "checkpoints/step-00000007.ckpt")
    with pytest.raises(UsageError, match=r"expected numbers of .*00007.ckpt, got those of other weights"):
        export.run(settings(trained, tmp_path / "after", evaluated=str(evaluated.path)))


def test_an_export_of_an_export_knows_no_run(run, tmp_path):
    export.run(settings(run, tmp_path / "once"))
    _, body = card_of(tmp_path / "once", tmp_path / "twice")
    assert "1.250" not in body and "| Steps | 3 |" in body


def test_text_in_a_table_stays_in_its_cell():
    assert cell("a|b\n <c> `d` [e](f)") == r"a\|b \<c\> \`d\` \[e\](f)"


class Hub(BaseHTTPRequestHandler):
    """What a hub answers to an upload; it keeps what it was sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.server.refuses:
            return self.answer({"error": f"no rights for {self.headers['Authorization']}"}, 403)
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{huggingface_hub.constants.ENDPOINT}/me/dogs"})
        if "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer({"files": files})
        if "/commit/" in self.path:
            return self.answer(
                {"commitUrl": f"{huggingface_hub.constants.ENDPOINT}/me/dogs/commit/1", "commitOid": "1"}
            )
        return self.answer({})

    def do_GET(self):
        if not self.path.startswith("/api/models/"):
            return self.answer({})  # what huggingface_hub asks of itself, without the token
        self.server.asked.append((self.path, self.headers.get("Authorization"), b""))
        if self.server.holds is None:
            return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        return self.answer({"id": "me/dogs", "private": self.server.holds == "private"})

    def answer(self, content, status=200, more=()):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(more).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.refuses, server.holds = [], False, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


def test_nothing_is_sent_unless_it_is_asked_for(run, tmp_path, hub):
    export.run(settings(run, tmp_path / "out"))
    assert hub.asked == []


@pytest.mark.parametrize("public", [False, True])
def test_the_whole_folder_is_uploaded_to_a_private_repository_unless_told_otherwise(
    public, run, tmp_path, hub, capsys, caplog
):
    export.run(settings(run, tmp_path / "out", push_to="me/dogs", public=public))
    assert {given for _, given, _ in hub.asked} == {f"Bearer {TOKEN}"}
    made = json.loads(next(body for path, _, body in hub.asked if path == "/api/repos/create"))
    assert made["name"] == "dogs" and made["organization"] == "me"
    assert made.get("private", made.get("visibility") == "private") is not public
    (commit,) = (body for path, _, body in hub.asked if path == "/api/models/me/dogs/commit/main")
    rows = [json.loads(line) for line in commit.decode().splitlines()]
    sent = {row["value"]["path"]: b64decode(row["value"]["content"]) for row in rows if row["key"] == "file"}
    assert sent == {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert (
        b"capkit: hf download me/dogs --local-dir dogs, then ckpt=dogs\n" in sent["README.md"]
        and b"# dogs\n" in sent["README.md"]
    )
    told = capsys.readouterr()
    assert "uploaded: http://127.0.0.1" in told.out and TOKEN not in told.out + told.err + caplog.text


def test_a_hub_that_refuses_is_told_without_the_token(run, tmp_path, hub, capsys):
    hub.refuses = True
    with pytest.raises(RunFailure, match=r"the hub did not take it .* `hf upload me/dogs .* --private`") as told:
        export.run(settings(run, tmp_path / "out", push_to="me/dogs"))
    assert TOKEN not in str(told.value) and told.value.__cause__ is None
    assert (tmp_path / "out/README.md").is_file() and TOKEN not in capsys.readouterr().err


def test_a_repository_that_everybody_reads_is_no_place_for_a_private_export(run, tmp_path, hub):
    hub.holds = "public"
    with pytest.raises(UsageError, match="expected a new or private repository, got one that everybody can read"):
        export.run(settings(run, tmp_path / "out", push_to="me/dogs"))
    assert [path for path, _, _ in hub.asked] == ["/api/models/me/dogs"] and not (tmp_path / "out").exists()
    export.run(settings(run, tmp_path / "out", push_to="me/dogs", public=True))
    hub.holds = "private"
    export.run(settings(run, tmp_path / "again", push_to="me/dogs"))
    assert sum("/commit/" in path for path, _, _ in hub.asked) == 2


def test_parts_on_a_hub_are_loaded_by_their_subfolder(monkeypatch, tmp_path):
    (tmp_path / "about.json").write_text('{"pictures": null}')
    part = SimpleNamespace(network=torch.nn.Linear(1, 1), folder="tower")
    monkeypatch.setattr(export, "parts_of", lambda model: [part])
    on_hub = export._how_to_load(torch.nn.Identity(), tmp_path, "me/dogs", is_on_hub=True)
    assert on_hub[0] == "transformers: Linear.from_pretrained('me/dogs', subfolder='tower')"
    assert export._how_to_load(torch.nn.Identity(), tmp_path, "a/dogs")[0].endswith("from_pretrained('a/dogs/tower')")


def test_the_command_of_a_card_tells_no_folder_of_this_machine():
    command = "capkit fit data.train.captions=/home/me/my-data/x.csv 'runs=[/a/b/c,~/d/e]' optimizer.lr=1e-3 b=runs/c"
    told = "capkit fit data.train.captions=x.csv 'runs=[c,e]' optimizer.lr=1e-3 b=runs/c"
    assert _FOLDERS.sub("", command) == told


@pytest.mark.parametrize(
    "name, is_offline, token, told",
    [
        ("dogs", False, TOKEN, "expected OWNER/NAME"),
        ("me/dogs/x", False, TOKEN, "expected OWNER/NAME"),
        ("me/dogs", True, TOKEN, "got HF_HUB_OFFLINE; unset it"),
        ("me/dogs", False, "", "expected a token of the hub, got none; log in by"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_the_export(
    name, is_offline, token, told, run, tmp_path, hub, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", is_offline)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=told):
        export.run(settings(run, tmp_path / "out", push_to=name))
    assert hub.asked == [] and not (tmp_path / "out").exists()
