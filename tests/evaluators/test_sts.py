import numpy as np
import pytest
import torch

from capkit.errors import UsageError
from capkit.evaluators.sts import STS

ANGLES = {"0": 0, "30": 30, "60": 60, "90": 90, "180": 180}
TEXTS = {text: [np.cos(np.radians(angle)), np.sin(np.radians(angle))] for text, angle in ANGLES.items()}


def written(folder, name, *lines):
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return str(folder / name)


def test_correlations_by_hand_for_each_file_and_their_mean(table, tmp_path, rows_in):
    # cosines with "0": 1, .5, -1
    good = written(tmp_path, "good.tsv", "3\t0\t0", "2\t0\t60", "1\t0\t180")
    bad = written(tmp_path, "bad.tsv", "1\t0\t0", "2\t0\t60", "3\t0\t180")
    encoder = table([[1.0, 0]], TEXTS)
    numbers = STS({"good": good, "bad": bad})(encoder, None, tmp_path)
    # centred scores (1, 0, -1), cosines (.833, .333, -1.167): 2 / sqrt(2 * 2.1667)
    assert numbers["sts_good_pearson"] == pytest.approx(2 / (2 * 13 / 6) ** 0.5)
    assert (numbers["sts_good_spearman"], numbers["sts_bad_spearman"]) == (pytest.approx(1), pytest.approx(-1))
    assert numbers["sts_pearson"] == pytest.approx(0, abs=1e-9) and numbers["sts_good_pairs"] == 3
    assert sorted(encoder.seen_texts) == ["0", "180", "60"]
    row = rows_in(tmp_path / "sts.jsonl")[1]
    assert row | {"cosine": 0} == {"file": "good", "first": "0", "second": "60", "score": 2, "cosine": 0}
    assert row["cosine"] == pytest.approx(0.5)


def test_a_second_run_encodes_nothing(table, tmp_path):
    files = {"a": written(tmp_path, "a.tsv", "3\t0\t0", "2\t0\t60")}
    first = STS(files)(table([[1.0, 0]], TEXTS), None, tmp_path)
    again = table([[1.0, 0]], TEXTS)
    assert STS(files)(again, None, tmp_path) == first and again.seen_texts == []


def test_an_encoder_without_pictures_will_do(table, tmp_path):
    class Sentences:
        name, max_length = "sentences", 8

        def encode_text(self, texts):
            return torch.tensor([TEXTS[text] for text in texts])

        def is_cut(self, texts):
            return [False] * len(texts)

        def to(self, device):
            return self

        def fingerprint_fields(self, side):
            return {"side": side}

    files = {"a": written(tmp_path, "a.tsv", "3\t0\t0", "2\t0\t60")}
    assert STS(files)(Sentences(), None, tmp_path)["sts_pearson"] == pytest.approx(1)


def test_no_files_is_an_error():
    with pytest.raises(UsageError, match="sts: expected files by name"):
        STS({})
