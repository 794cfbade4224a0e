"""Pairing captions with pictures: by hand, and as two loops over all captions and all pictures do it."""

import numpy as np
import pytest

from capkit.curation.mining.cross import CrossSearch
from capkit.curation.reassignment import (
    Pairing,
    best_first,
    cycle_scores,
    own_pictures,
    pair_by_cycle,
    pair_by_similarity,
)


def at(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1).astype(np.float32)


def cos(degrees):
    return pytest.approx(np.cos(np.radians(degrees)), abs=1e-6)


# By angle, K = 2: caption 0 at 0 has pictures 0 at 5 and 1 at 60 as candidates; caption 1 at 20 has 0, 15 away, and 1,
# 40 away; caption 2 at 90 has 2 at 84 and 1. T = 1: picture 0 leads back to caption 0; 1, 30 away, and 2 to caption 2.
CAPTIONS, PICTURES = at(0, 20, 90), at(5, 60, 84)
CAPTIONS_OF = np.array([[0], [2], [2]])
# Sentences: caption 1 says almost what caption 2 says, so that picture 1 is the one that leads back to it.
SENTENCES = at(0, 50, 60)


def searched(folder, queries, database, num_neighbors, chunk_size=1000):
    return CrossSearch(queries, database, num_neighbors, folder, chunk_size)


def test_a_case_worked_by_hand(tmp_path):
    (found,) = searched(tmp_path, CAPTIONS, PICTURES, 2)
    assert found[0].tolist() == [[0, 1], [0, 1], [2, 1]]
    (back,) = searched(tmp_path, PICTURES, CAPTIONS, 1)
    assert back[0].tolist() == CAPTIONS_OF.tolist()
    scores = cycle_scores(0, found[0], CAPTIONS_OF, SENTENCES)
    assert scores[0] == cos([0, 60]) and scores[1] == cos([50, 10]) and scores[2] == cos([0, 0])
    pairing = pair_by_cycle([found], CAPTIONS_OF, SENTENCES)
    assert pairing.pictures.tolist() == [0, 1, 2], "caption 1 goes to the picture that leads back, not to the nearest"
    assert pairing.scores == cos([0, 10, 0]) and pairing.similarities == cos([5, 40, 6])
    assert best_first(pairing, 0.67).tolist() == [0, 2], "equal scores by the cosine of caption and picture"
    plain = pair_by_similarity([found])
    assert plain.pictures.tolist() == [0, 0, 2] and plain.scores == cos([5, 15, 6])


def test_a_score_is_that_of_the_best_of_a_pictures_captions():
    scores = cycle_scores(1, np.array([[0, 1, -1]]), np.array([[0, 2], [0, 0]]), SENTENCES)
    assert scores[0, :2] == cos([10, 50]) and np.isnan(scores[0, 2])


def test_each_caption_may_be_kept_at_the_picture_that_it_came_with():
    owners = np.array([1, 0, -1, 1])
    captions = at(0, 20, 90, 0)
    chunks = list(own_pictures(owners, captions, PICTURES, chunk_size=3))
    assert [len(candidates) for candidates, _ in chunks] == [3, 1]
    pairing = pair_by_cycle(chunks, CAPTIONS_OF, at(60, 50, 60, 0))
    assert pairing.pictures.tolist() == [1, 0, -1, 1]
    assert pairing.similarities[[0, 1, 3]] == cos([60, 15, 60]) and np.isnan(pairing.similarities[2])
    assert pairing.scores[[0, 1, 3]] == cos([0, 10, 60]) and np.isnan(pairing.scores[2])
    assert best_first(pairing, 1.0).tolist() == [0, 1, 3], "one without a picture is no pair"


@pytest.mark.parametrize(("keep", "number"), [(1.0, 100), (0.9, 90), (0.29, 29), (0.295, 29), (0.001, 0)])
def test_the_number_kept_is_rounded_down(keep, number):
    ones = np.ones(100, np.float32)
    assert best_first(Pairing(np.zeros(100, np.int32), ones, ones), keep).tolist() == list(range(number))


def whole(rows):
    return [[round(float(x) * 2**24) for x in row] for row in rows]


def cosine(one, other):
    return np.float32(sum(a * b for a, b in zip(one, other, strict=True)) / 2**48)


def two_loops(captions, pictures, sentences, num_images, num_captions, keep):
    """(caption, picture, score) of the pairs that are kept, best first."""
    captions, pictures, sentences = map(whole, (captions, pictures, sentences))
    pairs = []
    for i, caption in enumerate(captions):
        best = None
        near = sorted(range(len(pictures)), key=lambda j: (-cosine(caption, pictures[j]), j))[:num_images]
        for j in near:
            heard = sorted(range(len(captions)), key=lambda k: (-cosine(captions[k], pictures[j]), k))[:num_captions]
            score = max(cosine(sentences[i], sentences[k]) for k in heard)
            if best is None or score > best[0]:
                best = score, cosine(caption, pictures[j]), j
        pairs.append((-best[0], -best[1], i, best[2]))
    return [(i, j, -score) for score, _, i, j in sorted(pairs)[: int(keep * len(pairs))]]


def unit_vectors(num_vectors, width, seed):
    drawn = np.random.default_rng(seed).standard_normal((num_vectors, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def corners(num_vectors, width, seed):
    """Every cosine is exact, and many are equal."""
    drawn = np.random.default_rng(seed).choice([-1, 1], (num_vectors, width))
    return (drawn / np.sqrt(width)).astype(np.float32)


@pytest.mark.parametrize("draw", [unit_vectors, corners], ids=["drawn", "ties"])
@pytest.mark.parametrize("chunk_size", [7, 1000])
@pytest.mark.parametrize(("num_captions", "num_pictures"), [(30, 30), (31, 12), (1, 16)])
def test_it_pairs_as_two_loops_do_ties_included(draw, chunk_size, num_captions, num_pictures, tmp_path):
    captions, pictures = draw(num_captions, 16, 0), draw(num_pictures, 16, 1)
    sentences = draw(num_captions, 4, 2)
    if num_captions > 1:  # one caption written twice
        captions[num_captions // 2], sentences[num_captions // 2] = captions[0], sentences[0]
    num_heard = min(2, num_captions)
    back = [rows for rows, _ in searched(tmp_path, pictures, captions, num_heard, chunk_size)]
    found = searched(tmp_path, captions, pictures, min(15, num_pictures), chunk_size)
    pairing = pair_by_cycle(found, np.concatenate(back), sentences)
    ours = [(i, pairing.pictures[i], pairing.scores[i]) for i in best_first(pairing, 0.9).tolist()]
    assert ours == two_loops(captions, pictures, sentences, 15, num_heard, 0.9)


def test_turning_all_vectors_of_an_encoder_alike_changes_no_pair(tmp_path):
    draw = np.random.default_rng(3)
    turn, other = (np.linalg.qr(draw.standard_normal((n, n)))[0].astype(np.float32) for n in (16, 8))
    captions, pictures, sentences = unit_vectors(40, 16, 0), unit_vectors(40, 16, 1), unit_vectors(40, 8, 2)
    pairs = []
    for c, p, s in ((captions, pictures, sentences), (captions @ turn, pictures @ turn, sentences @ other)):
        back = np.concatenate([rows for rows, _ in searched(tmp_path, p, c, 2)])
        pairs.append(pair_by_cycle(searched(tmp_path, c, p, 15), back, s).pictures.tolist())
    assert pairs[0] == pairs[1]
