"""Names of logged numbers, for their readers: the dashboard and the docs page on monitors."""

TRAIN = ("train/loss", "train/grad_norm", "train/lr", "train/images_per_second")

# Logged with callback=throughput: docs/throughput.md.
THROUGHPUT = (
    "throughput/images_per_second", "throughput/tokens_per_second", "throughput/data_share", "throughput/rollout_share",
    "throughput/reward_share", "throughput/update_share", "throughput/matmul_share", "throughput/peak_gib",
)  # fmt: skip

# Logged if batches are made of bags of similar images.
BAG_SIZE = "train/bag_size"

# In addition, each reward term logs `reward/TERM` and `reward/TERM_weighted`.
REWARD = ("reward/total", "reward/std", "reward/zero_spread", "reward/failed", "reward/greedy")

POLICY = (
    "rl/repetition", "rl/distinct_2", "rl/bad_endings", "rl/length", "rl/hit_max_length", "rl/tokens",
    "rl/entropy", "rl/kl", "rl/logprob_gap", "rl/clip_fraction", "rl/baseline",
)  # fmt: skip

# The subset of validation metrics that dashboard panels show.
VALIDATION = (
    "val/cider", "val/bleu_4", "val/rouge_l",
    "val/fact_f1", "val/fact_precision", "val/fact_recall",
    "val/clip_score_mean", "val/clip_score_ref",
    "val/retrieval_t2i_r1", "val/retrieval_t2i_r5", "val/retrieval_t2i_r10", "val/retrieval_t2i_median_rank",
    "val/retrieval_i2t_r1", "val/retrieval_i2t_r5", "val/retrieval_i2t_r10", "val/retrieval_pool",
    "val/truematch_3_r1", "val/truematch_5_r1", "val/truematch_7_r1",
    "val/repetition", "val/distinct_2", "val/bad_endings", "val/empty", "val/length", "val/vocabulary_size",
)  # fmt: skip

SAMPLES, RETRIEVAL = "samples/captions", "samples/retrieval"  # tables


def of_term(term: str) -> tuple[str, str]:
    """Names of the numbers that a reward term logs: raw, and as weighted in the total."""
    return f"reward/{term}", f"reward/{term}_weighted"
