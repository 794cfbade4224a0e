"""Scorers: (batch, samples) -> numbers, higher is better. One serves as reward, metric, filter and reranker."""
