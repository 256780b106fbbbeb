"""Codes from the prior, one token after the other, by temperature and top-k.

    c_t = argmax_k ( ℓ_k / T + g_k )    over the K largest logits ℓ of p(c_t | c_<t);    g Gumbel noise

which draws from softmax(ℓ / T) cut to its K largest. The noise of a sample follows from its own seed, so what is drawn does
not depend on how many others are drawn beside it. (Inverting the cumulative distribution would do the same with one number
per token, but one rounding error anywhere in the sum could then move the token; here only a tie of the two best can.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_core.noise import mix_seeds

__all__ = ["cache_rows", "check_sampling", "draw_codes"]

_CACHE_BYTES = 4e9
_MOST_ROWS = 256


def check_sampling(top_k: int, temperature: float, vocabulary: int) -> None:
    """Raise ConfigError for a setting that cannot be."""
    if top_k < 0:
        raise ConfigError(f"generator.top_k is a number of codes (of {vocabulary}), or 0 for all of them; not {top_k}.")
    if not temperature >= 0:
        raise ConfigError(f"generator.temperature is 0 (always the likeliest code) or above, not {temperature}.")


def cache_rows(prior: Any) -> int:
    """How many sequences to draw at once: what 4 GB of keys and values hold, at most 256."""
    config = prior.config
    row = 2 * config.n_layer * config.n_positions * config.n_embd * prior.dtype.itemsize
    return int(max(1, min(_MOST_ROWS, _CACHE_BYTES // row)))


@torch.no_grad()
def draw_codes(
    prior: Any,
    seeds: Sequence[int],
    *,
    length: int,
    start: int = 0,
    top_k: int = 250,
    temperature: float = 1.0,
    use_cache: bool = True,
) -> Tensor:
    """One sequence of `length` codes per seed, (len(seeds), length) int64 on the prior's device.

    prior      a GPT2LMHeadModel whose positions cover `length`
    start      the token in front; it is not part of the result
    top_k      0 = all codes; temperature 0 = the likeliest code, without noise
    use_cache  keep keys and values of the earlier positions, instead of running over them again for each code
    """
    check_sampling(top_k, temperature, prior.config.vocab_size)
    if length > prior.config.n_positions:
        raise ConfigError(f"the prior draws at most {prior.config.n_positions} codes, not {length}.")
    device = prior.device
    noise = _gumbel(seeds, length, prior.config.vocab_size).to(device) if temperature else None
    tokens = torch.full((len(seeds), 1), start, dtype=torch.long, device=device)
    past: Any = None
    for position in range(length):
        fed = tokens[:, -1:] if use_cache else tokens
        mask = torch.ones_like(tokens)  # token 0 is a code like any other: nothing is padding
        out = prior.transformer(fed, past_key_values=past, attention_mask=mask, use_cache=use_cache)
        past = out.past_key_values
        logits = prior.lm_head(out.last_hidden_state[:, -1]).float()
        if noise is not None:
            logits = _largest(logits, top_k) / temperature + noise[:, position]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    return tokens[:, 1:]


def _largest(logits: Tensor, k: int) -> Tensor:
    """All but the k largest of each row become -inf."""
    if not 0 < k < logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def _gumbel(seeds: Sequence[int], length: int, vocabulary: int) -> Tensor:
    """Gumbel noise (len(seeds), length, vocabulary), float32; row i depends on seeds[i] only, whatever the device."""
    rows = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(mix_seeds(seed, 0xC0DE))
        rows.append(torch.empty(length, vocabulary).exponential_(generator=rng))
    return -torch.stack(rows).log()
