"""Metrics of binary classifiers."""

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_f1_score


def auroc(logits: Float[Tensor, " N"], labels: Int[Tensor, " N"]) -> float:
    """Area under the ROC curve: fraction of (positive, negative) pairs ranked correctly; a tie counts 1/2.

    Exact, from the positives' mid-ranks (Mann-Whitney U). NaN if one class is missing.
    """
    num_positives = int(labels.sum())
    num_pairs = num_positives * (len(labels) - num_positives)
    if not num_pairs:
        return float("nan")
    _, place, counts = logits.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts - 1) / 2  # of equal values: their mean rank, from 1
    return float(ranks[place][labels == 1].sum() - num_positives * (num_positives + 1) / 2) / num_pairs


def binary_scores(logits: Float[Tensor, " N"], labels: Int[Tensor, " N"]) -> dict[str, float]:
    """`auroc`, and `accuracy` and `macro_f1` with a threshold of 0 on the logit (probability .5).

    Macro F1 is the mean of both classes' F1; a class that is neither a label nor predicted is left out, as in
    scikit-learn. AUROC does not depend on the threshold, so it may rank classifiers differently.
    """
    predicted = (logits > 0).long()
    return {
        "auroc": auroc(logits, labels),
        "accuracy": float((predicted == labels).double().mean()),
        "macro_f1": float(multiclass_f1_score(predicted, labels, num_classes=2, average="macro")),
    }
