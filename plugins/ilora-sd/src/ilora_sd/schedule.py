"""Noise schedules, and what a network's output says about the clean latent.

    x_t       = √a_t · x_0 + √(1 − a_t) · ε            a_t: cumulated alpha; flow: x_t = (1 − σ) x_0 + σ ε
    velocity    v = √a_t · ε − √(1 − a_t) · x_0        (Salimans and Ho, arXiv 2202.00512)
    x_0       = (x_t − √(1 − a_t) ε) / √a_t            from epsilon
              = √a_t · x_t − √(1 − a_t) v              from velocity
              = x_t − σ v                              from a flow, v = ε − x_0

Zero terminal SNR (Lin et al., arXiv 2305.08891, algorithm 1): √a is shifted so that the last one is 0 and scaled so that the
first one stays, and T is then noise alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import WeightsError

__all__ = ["PREDICTIONS", "alphas", "clean_latent", "noised", "prediction_of", "velocity"]

PREDICTIONS = ("epsilon", "v_prediction", "flow", "sample")


def alphas(config: Mapping[str, Any], *, zero_snr: bool = False) -> Tensor:
    """The cumulated alphas a_0 … a_{T−1} of a scheduler's configuration: float32 (T,), on the CPU, falling.

    zero_snr  rescaled so that the last one is exactly 0. Raises WeightsError for a schedule other than (scaled) linear.
    """
    kind, steps = config.get("beta_schedule", "linear"), int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if config.get("trained_betas") is not None or kind not in ("linear", "scaled_linear"):
        raise WeightsError(f"the noise schedule {kind!r} of scheduler_config.json is none of linear and scaled_linear.")
    power = 0.5 if kind == "scaled_linear" else 1.0
    # The device is said because a skeleton is made where tensors have no values.
    betas = torch.linspace(start**power, end**power, steps, dtype=torch.float32, device="cpu") ** (1 / power)
    table = torch.cumprod(1 - betas, 0)
    if not zero_snr:
        return table
    root = table.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * (first / (first - last))) ** 2


def prediction_of(config: Mapping[str, Any]) -> str:
    """One of PREDICTIONS: what a scheduler's configuration says that its network gives."""
    if "FlowMatch" in str(config.get("_class_name", "")):
        return "flow"
    return str(config.get("prediction_type", "epsilon"))


def noised(clean: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """x_t. alpha: a_t, broadcast against the latents."""
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def velocity(clean: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """v, of unit variance wherever latents and noise are."""
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


def clean_latent(output: Tensor, latent: Tensor, prediction: str, level: float) -> Tensor:
    """x_0 from a network's output at x_t = latent.

    level  a_t, or σ where prediction is "flow"; a_t = 0 and "epsilon" have no answer.
    """
    if prediction == "sample":
        return output
    if prediction == "flow":
        return latent - level * output
    if prediction == "v_prediction":
        return level**0.5 * latent - (1 - level) ** 0.5 * output
    return (latent - (1 - level) ** 0.5 * output) / level**0.5
