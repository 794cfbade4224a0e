"""capkit: training image captioners, by likelihood and by reinforcement learning, on one GPU or many."""

__version__ = "0.1.0"
