"""How far a run changed what its start states: numbers of facts in a run's metrics.json."""

from collections.abc import Mapping


def wrong_left(numbers: Mapping[str, float]) -> float:
    """What is left of the wrong facts per stated fact: 1 all."""
    return (1 - numbers["test/fact_precision"]) / (1 - numbers["test/initial/fact_precision"])


def gain(numbers: Mapping[str, float], name: str) -> float:
    return numbers[f"test/{name}"] - numbers[f"test/initial/{name}"]
