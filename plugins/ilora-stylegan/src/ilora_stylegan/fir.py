"""Low-pass filters with a Kaiser window, separable or radially symmetric, designed in float64.

    A = 2.285 (n − 1) π w / (f_s / 2) + 7.95             attenuation in dB of n taps with the transition width w
    β = 0.1102 (A − 8.7), A > 50;  0.5842 (A − 21)^0.4 + 0.07886 (A − 21), 21 ≤ A ≤ 50;  0, A < 21
    h_m ∝ sinc(2 f_c m / f_s) k_β(m)                     separable, m = i − (n − 1)/2
    h_mn ∝ J₁(2π f_c r) / (π r) k_β(m) k_β(n)            radial, r = |(m, n)| / f_s

(Kaiser 1974; for generators Karras et al. 2021, arXiv 2106.12423, appendix C.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["lowpass"]


def lowpass(taps: int, *, cutoff: float, half_width: float, rate: float, radial: bool = False) -> Tensor:
    """Taps with the sum 1: (taps,), or (taps,taps) if radial; float32, on the CPU.

    cutoff      f_c: the middle of the transition band, in cycles per unit
    half_width  half of the transition band's width, in cycles per unit
    rate        f_s: samples per unit
    """
    m = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2
    window = _kaiser(m, _beta(2.285 * (taps - 1) * math.pi * 2 * half_width / (rate / 2) + 7.95))
    if radial:
        r = torch.hypot(m[:, None], m[None, :]) / rate
        far = r.clamp(min=1e-12)  # J₁(2π f_c r) / (π r) tends to f_c at 0
        ideal = torch.where(r > 0, torch.special.bessel_j1(2 * math.pi * cutoff * far) / (math.pi * far), cutoff)
        h = ideal * torch.outer(window, window)
    else:
        h = torch.sinc(2 * cutoff / rate * m) * window
    return (h / h.sum()).float()


def _beta(attenuation: float) -> float:
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation >= 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def _kaiser(m: Tensor, beta: float) -> Tensor:
    """The window at the taps' places, up to a factor."""
    half = max(float(m[-1]), 0.5)
    return torch.special.i0(beta * torch.sqrt((1 - (m / half) ** 2).clamp(min=0)))
