"""capkit: training image captioners, by likelihood and by reinforcement learning, on one GPU or many."""

from capkit.utils.renamed import find_old_modules

__version__ = "0.1.0"

find_old_modules()
