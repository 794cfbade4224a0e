import numpy as np
import pytest
import torch

from capkit.metrics.coco import cider_torch
from capkit.metrics.coco.cider import cider_d_from_ids
from capkit.metrics.coco.cider_torch import IdfTable, cider_d_padded
from capkit.metrics.coco.corpus import ImageSentences
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.ngrams import Sentences, hash_ids


def random_images(seed, num_images, num_candidates, max_references, max_words=12):
    """Candidates and references as ids of few words, ragged, some empty, some candidates copies of a reference."""
    rng = np.random.default_rng(seed)
    sentence = lambda: rng.integers(0, 6, rng.integers(0, max_words + 1))  # noqa: E731
    references = [[sentence() for _ in range(rng.integers(1, max_references + 1))] for _ in range(num_images)]
    candidates = [[sentence() for _ in range(num_candidates)] for _ in range(num_images)]
    for image in range(0, num_images, 2):
        candidates[image][0] = references[image][-1]
    return candidates, references


def frequencies_of(references):
    flat = Sentences.from_arrays([s for sentences in references for s in sentences])
    return DocumentFrequencies.from_ids(flat, [len(r) for r in references], hash_ids(flat.ids), "token")


def by_numpy(candidates, references, frequencies):
    flat = [s for c, r in zip(candidates, references, strict=True) for s in (*c, *r)]
    images = ImageSentences(Sentences.from_arrays(flat), len(candidates[0]), np.array([len(r) for r in references]))
    return cider_d_from_ids(images, frequencies, hash_ids(images.sentences.ids))


def padded(rows, filler, extra=0):
    """(B N L) ids and (B N) lengths; the filler is a real word, which must not count."""
    num_rows, width = max(map(len, rows)), max(len(s) for row in rows for s in row) + extra
    ids, lengths = torch.full((len(rows), num_rows, width), filler), torch.zeros(len(rows), num_rows).long()
    for b, row in enumerate(rows):
        for k, words in enumerate(row):
            ids[b, k, : len(words)] = torch.from_numpy(words)
            lengths[b, k] = len(words)
    return ids, lengths


def by_torch(candidates, references, frequencies, dtype, filler=3, extra=0):
    num_references = torch.tensor([len(row) for row in references])
    table = IdfTable.from_frequencies(frequencies, "cpu", dtype)
    return cider_d_padded(*padded(candidates, filler, extra), *padded(references, filler), num_references, table)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 4), (7, 1, 2), (3, 4, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_torch_equals_numpy(shape, dtype, tolerance):
    for seed in range(4):
        candidates, references = random_images(seed, *shape)
        corpus = frequencies_of([*references, *random_images(seed + 100, 9, 1, 3)[1]])
        expected = by_numpy(candidates, references, corpus)
        found = by_torch(candidates, references, corpus, dtype)
        assert found.dtype == dtype
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance)
        assert shape[0] < 3 or expected.max() > 0.1


def test_padding_and_what_it_holds_do_not_matter():
    candidates, references = random_images(1, 4, 2, 3)
    corpus = frequencies_of(references)
    plain = by_torch(candidates, references, corpus, torch.float64)
    torch.testing.assert_close(by_torch(candidates, references, corpus, torch.float64, filler=0, extra=9), plain)


def test_scoring_in_several_passes_changes_nothing(monkeypatch):
    candidates, references = random_images(2, 7, 2, 3)
    corpus = frequencies_of(references)
    at_once = by_torch(candidates, references, corpus, torch.float64)
    monkeypatch.setattr(cider_torch, "_COMPARISONS_AT_ONCE", 1)
    torch.testing.assert_close(by_torch(candidates, references, corpus, torch.float64), at_once)


def test_permuting_images_permutes_scores():
    candidates, references = random_images(3, 6, 2, 3)
    corpus = frequencies_of(references)
    order = [4, 2, 0, 5, 1, 3]
    permuted = by_torch([candidates[i] for i in order], [references[i] for i in order], corpus, torch.float64)
    torch.testing.assert_close(permuted, by_torch(candidates, references, corpus, torch.float64)[order])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_equals_the_cpu():
    candidates, references = random_images(4, 8, 3, 4)
    corpus = frequencies_of(references)
    num_references = torch.tensor([len(row) for row in references]).cuda()
    inputs = [t.cuda() for t in (*padded(candidates, 3), *padded(references, 3))]
    found = cider_d_padded(*inputs, num_references, IdfTable.from_frequencies(corpus, "cuda", torch.float32))
    np.testing.assert_allclose(found.cpu().numpy(), by_numpy(candidates, references, corpus), rtol=0, atol=1e-4)
