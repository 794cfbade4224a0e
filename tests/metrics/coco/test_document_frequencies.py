import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from capkit.errors import UsageError
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.ngrams import VOCABULARY

REFERENCES = [["a cat", "a cat a cat"], ["a dog"]]


def key(word):
    _ = VOCABULARY[word]
    return VOCABULARY.hashes()[VOCABULARY[word]]


def test_an_ngram_counts_once_per_image():
    corpus = DocumentFrequencies.from_references(REFERENCES, tokenized=True)
    # Different n-grams: a, cat, dog; a cat, cat a, a dog; a cat a, cat a cat; a cat a cat.
    assert (len(corpus.keys), corpus.counts.sum(), corpus.num_images) == (9, 10, 2)
    idf = corpus.idf(np.array([key("a"), key("cat"), key("never seen")]))
    np.testing.assert_allclose(idf, [0.0, np.log(2), np.log(2)])


def test_a_saved_corpus_comes_back(tmp_path):
    corpus = DocumentFrequencies.from_references(REFERENCES)
    corpus.save(tmp_path / "new folder" / "df.safetensors")
    loaded = DocumentFrequencies.load(tmp_path / "new folder" / "df.safetensors")
    assert loaded.content_hash() == corpus.content_hash()
    np.testing.assert_array_equal(loaded.keys, corpus.keys)
    assert (loaded.num_images, loaded.units) == (2, "word")


@pytest.mark.integration
def test_another_process_builds_the_same_corpus():
    code = (
        "from capkit.metrics.coco.document_frequencies import DocumentFrequencies as D;"
        f"D.from_references([['zebra']], tokenized=True);"
        f"print(D.from_references({REFERENCES}, tokenized=True).content_hash())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == DocumentFrequencies.from_references(REFERENCES, tokenized=True).content_hash()


def test_a_changed_file_is_refused(tmp_path):
    corpus = DocumentFrequencies.from_references(REFERENCES)
    path = tmp_path / "df.safetensors"
    corpus.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="changed after it was written"):
        DocumentFrequencies.load(path)


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        DocumentFrequencies.load(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="holds no document frequencies"):
        DocumentFrequencies.load(tmp_path / "text")
    save_file({"weight": np.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="holds no document frequencies"):
        DocumentFrequencies.load(tmp_path / "model.safetensors")


def test_no_references_are_a_usage_error():
    with pytest.raises(UsageError, match="at least one image"):
        DocumentFrequencies.from_references([])


KEYS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1])


@given(st.dictionaries(KEYS, st.integers(1, 9), min_size=1, max_size=20), st.lists(KEYS, max_size=8))
def test_looking_up_equals_a_dict(counts, others):
    keys = np.array(sorted(counts))
    corpus = DocumentFrequencies(keys, np.array([counts[key] for key in keys.tolist()]), 9)
    wanted = np.array([*counts, *others], np.int64)
    expected = [np.log(9) - np.log(counts.get(key, 1)) for key in wanted.tolist()]
    np.testing.assert_allclose(corpus.idf(wanted), expected, atol=1e-12)
