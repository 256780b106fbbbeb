"""Disjoint seed ranges: one number decides which split a room belongs to, for ever.

The rule of the world: nothing but `pretrain` may be seen by a generator or its codec, nothing but `labeller` by a
trained labeller, and nothing but `labels` by an adapter.
"""

from __future__ import annotations

__all__ = ["SPLITS", "seeds"]

SPLITS: dict[str, range] = {
    "pretrain": range(10_000_000),
    "labels": range(10_000_000, 11_000_000),
    "test": range(11_000_000, 12_000_000),
    "labeller": range(12_000_000, 20_000_000),
    "shifted": range(20_000_000, 21_000_000),
}


def seeds(split: str, n: int) -> range:
    """The first `n` seeds of a split: subsets are nested, so 16 labels are the first of 64."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    whole = SPLITS[split]
    if not 0 <= n <= len(whole):
        raise ValueError(f"split {split!r} has {len(whole)} seeds, {n} were asked for")
    return whole[:n]
