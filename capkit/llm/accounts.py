"""Accounts of what asks models (data steps, metrics), and the table of what a dry run would ask."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from capkit.llm.ledger import Account, Ledger
from capkit.utils.console import Screen


def open_accounts(holders: Mapping[str, Any], ledger: Ledger) -> dict[str, Account]:
    """An account for each of the `askers` of each holder, by "holder/asker".

    Raises UsageError for a budget without a price.
    """
    accounts = {}
    for name, holder in holders.items():
        for kind, asker in getattr(holder, "askers", {}).items():
            accounts[f"{name}/{kind}"] = asker.account = ledger.account(f"{name}/{kind}", asker.model)
    ledger.check()
    return accounts


def show_cost(
    holders: Mapping[str, Any], accounts: Mapping[str, Account], what: str, title: str
) -> dict[str, float | int]:
    """Print what was kept and what would be asked, and the most that it can cost; the counts, by account.

    `what` the holders are heads the first column.
    """
    counts: dict[str, float | int] = {}
    table = Table(what, "model", "kept", "to ask", "tokens in", "tokens out, at most", "money, at most", title=title)
    for name, account in accounts.items():
        holder, _, kind = name.rpartition("/")
        kept = holders[holder].askers[kind].counts["cached"]
        counts |= {f"{name}_cached": kept, f"{name}_expected": account.num_expected}
        counts |= {f"{name}_{key}": value for key, value in account.row().items()}
        out = "not known" if account.max_tokens is None else f"{account.tokens_out:,}"
        money = "no price" if account.price is None else f"{account.money:,.4f}"
        numbers = (f"{kept:,}", f"{account.num_expected:,}", f"{account.tokens_in:,}", out, money)
        table.add_row(name, str(account.model.about()["model"]), *numbers)
    Screen().print(table)
    return counts
