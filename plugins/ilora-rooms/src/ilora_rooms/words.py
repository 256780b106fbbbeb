"""A real CLIPTokenizer over the world's closed vocabulary: byte-level BPE whose merges spell every word whole.

Words are added one by one: what the merges so far make of a word is joined left to right by new merges of lower
priority. A word once whole stays whole, because at each step a merge of its own comes before any later one.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from .captions import vocabulary

__all__ = ["MAX_TOKENS", "build_tokenizer", "write_tokenizer_files"]

MAX_TOKENS = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(spare)) for b in range(256)]


def _apply(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """BPE: join the best-ranked adjacent pair until none is left."""
    while len(pieces) > 1:
        pairs = [(ranks.get((a, b), 1 << 30), i) for i, (a, b) in enumerate(pairwise(pieces))]
        rank, i = min(pairs)
        if rank == 1 << 30:
            break
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
    return pieces


def _merges(words: list[str]) -> list[tuple[str, str]]:
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = _apply([*word[:-1], word[-1] + "</w>"], ranks)
        while len(pieces) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return list(ranks)


def _tables() -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = _merges(vocabulary())
    letters = _byte_alphabet()
    tokens = [*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges), START, END]
    return {t: i for i, t in enumerate(dict.fromkeys(tokens))}, merges


def build_tokenizer() -> CLIPTokenizer:
    vocab, merges = _tables()
    pairs: Any = merges  # typed as strings there, but pairs are what the tokenizer behind it takes
    return CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=END, model_max_length=MAX_TOKENS)


def write_tokenizer_files(folder: Path) -> None:
    """tokenizer.json and config through transformers, plus the classic vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save_pretrained(folder)
    vocab, merges = _tables()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
