"""Which strategies of a ranking are worth a trial."""

from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import InputError
from ..ranking.result import shown

RANKED, NEAR, ALSO = "ranked", "near tie", "also"  # why a strategy is on the list


def shortlist(ranking: Mapping[str, Any], size: int, also: Sequence[str] = ()) -> dict[str, str]:
    """Return the names to try in the ranking's order, each with the reason.

    These are the best ``size``, then those whose interval overlaps the interval of the last of
    them, up to ``2 * size`` together, and ``also`` wherever they stand. Strategies beyond a PAC
    limit are left out, and with such a limit none are near ties: what decides has no interval then.

    Args:
        ranking: the content of a ``ranking.json``.
        size: how many strategies, without near ties and others.
        also: names that are tried in any case.

    Raises:
        InputError: every strategy is beyond the PAC limit, and none is tried in any case.
    """
    rows, limit = ranking["strategies"], ranking["criterion"]["pac_limit"]
    allowed = [row for row in rows if limit is None or row["pac"] <= limit]
    best, others = allowed[:size], allowed[size : 2 * size]
    near = [row for row in others if limit is None and _overlap(row, best[-1])]
    why = {row["name"]: NEAR for row in near} | {row["name"]: RANKED for row in best}
    listed = {row["name"]: why.get(row["name"], ALSO) for row in rows}
    found = {name: reason for name, reason in listed.items() if name in why or name in also}
    if not found:
        least = min(row["pac"] for row in rows)
        raise InputError(
            f"pac_limit: no strategy is within {limit:g} nats; expected {least:.4g} or more"
        )
    return found


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    (low, high), (least, most) = shown(dict(one))[1], shown(dict(other))[1]
    return bool(low <= most and least <= high)
