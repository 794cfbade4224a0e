"""What a run of many records takes, scaled from a dry run over some of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from capkit.errors import UsageError
from capkit.llm.ledger import Account

# A kept answer's line beside its texts: its key, names of fields, counts of tokens.
LINE_BYTES = 120
# English text of common tokenizers.
BYTES_PER_TOKEN_SAID = 4


@dataclass(frozen=True)
class Size:
    """The most that questions of one account take. `money` is None without a price, `gpu_hours` without a speed."""

    questions: float | int
    tokens_in: float | int
    tokens_out: float | int
    money: float | int | None
    store_bytes: float | int
    gpu_hours: float | int | None


def total_size(sizes: Sequence[Size]) -> Size:
    return Size(
        questions=sum(size.questions for size in sizes),
        tokens_in=sum(size.tokens_in for size in sizes),
        tokens_out=sum(size.tokens_out for size in sizes),
        money=_known_sum([size.money for size in sizes]),
        store_bytes=sum(size.store_bytes for size in sizes),
        gpu_hours=_known_sum([size.gpu_hours for size in sizes]),
    )


def _known_sum(numbers: Sequence[float | int | None]) -> float | int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def scaled(account: Account, factor: float | int, tokens_per_second: Sequence[float | int] | None = None) -> Size:
    """The size of an account of a dry run, times `factor`.

    Every question is kept with its answer: LINE_BYTES, the words asked, and BYTES_PER_TOKEN_SAID for each token of the
    longest answer. `tokens_per_second` are what one GPU reads and writes.
    """
    tokens_in, tokens_out = factor * account.tokens_in, factor * account.tokens_out
    texts = account.bytes_expected + BYTES_PER_TOKEN_SAID * account.tokens_out
    hours = None
    if tokens_per_second is not None:
        if len(tokens_per_second) != 2:
            raise UsageError(
                f"gpu_tokens_per_second: expected two speeds, of reading and of writing, got {len(tokens_per_second)}; "
                "give such as [20000,2000]"
            )
        read, written = tokens_per_second
        hours = (tokens_in / read + tokens_out / written) / 3600
    return Size(
        questions=factor * account.num_expected,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        money=None if account.price is None else factor * account.money,
        store_bytes=factor * (LINE_BYTES * account.num_expected + texts),
        gpu_hours=hours,
    )
