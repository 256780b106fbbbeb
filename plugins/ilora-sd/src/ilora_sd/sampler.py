"""Drawing a map in many steps: DPM-Solver++ on guided velocities.

    guided     v = g v(text, picture) + (p − g) v("", picture) + (1 − p) v("", nothing)
    rescaled   v ← φ v · std v(text, picture) / std v + (1 − φ) v                 (Lin et al., arXiv 2305.08891, section 3.4)

This is InstructPix2Pix's guidance (arXiv 2211.09800, equation 3), v0 + p (vi − v0) + g (vt − vi), by branch. With picture
guidance p = 1, the reference's, the last branch weighs nothing and is not computed: two evaluations instead of three.

The solver (arXiv 2211.01095: second order, midpoint) is diffusers'. With a zero terminal SNR its first noise level is infinite:
the schedule it is given here keeps it finite, and ends at the smallest level of training, as the reference's did.

The reference pipeline behaves differently in the first and in later calls of one object: it looks for a table of noise levels
that exists only from the first call on, then guides x − σ v instead of v, with σ read from the wrong end of that table. Only the
rescaling notices. Here velocities are guided, as in the first call; `reference_sigmas` repeats the later ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ilora_core.errors import ConfigError
from ilora_sd.schedule import noised

__all__ = ["Branch", "Sampling", "branches", "draw", "guide"]

_SPACINGS = ("linspace", "trailing", "leading")


@dataclass(frozen=True)
class Sampling:
    """How a map is drawn.

    steps             of the solver, over the whole trajectory
    cfg               weight g of the prompt; 1 = no guidance
    image_guidance    weight p of the picture; 1 needs two evaluations a step, others three
    guidance_rescale  φ in [0,1]
    spacing           of the timesteps: linspace as in the reference (999, 959, … 40 for 25 steps), trailing or leading
    reference_sigmas  rescale as the reference does from the second call on
    strength          where the trajectory starts, as a share of it: 1 = from noise alone, less = from the picture's own latent
                      under the noise of that time, as SDEdit does (Meng et al., arXiv 2108.01073); at least one step is taken
    seeds             how many maps are drawn and averaged
    noise_seed        of the starting noise
    """

    steps: int = 25
    cfg: float = 3.0
    image_guidance: float = 1.0
    guidance_rescale: float = 0.7
    spacing: str = "linspace"
    reference_sigmas: bool = False
    strength: float = 1.0
    seeds: int = 1
    noise_seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seeds < 1:
            raise ConfigError("generator.steps and generator.seeds are at least 1.")
        if not 0 < self.strength <= 1:
            raise ConfigError(f"generator.strength lies above 0 and up to 1, not at {self.strength}.")
        if not 0 <= self.guidance_rescale <= 1:
            raise ConfigError(f"generator.guidance_rescale lies in [0, 1], not {self.guidance_rescale}.")
        if self.spacing not in _SPACINGS:
            raise ConfigError(f"generator.spacing is one of {', '.join(_SPACINGS)}, not {self.spacing!r}.")


@dataclass(frozen=True)
class Branch:
    """One evaluation: its weight, and whether it sees the prompt and the picture."""

    weight: float
    text: bool
    picture: bool


def branches(sampling: Sampling) -> tuple[Branch, ...]:
    """The evaluations of one step; the first is the one with everything, whose spread the rescaling keeps."""
    g, p = sampling.cfg, sampling.image_guidance
    wanted = (Branch(g, True, True), Branch(p - g, False, True), Branch(1 - p, False, False))
    return tuple(branch for branch in wanted if branch.text or branch.weight)


def guide(answers: Sequence[Tensor], sampling: Sampling) -> Tensor:
    """One prediction (B,C,h,w) from those of `branches(sampling)`, rescaled."""
    weights = [branch.weight for branch in branches(sampling)]
    total = sum((w * answer for w, answer in zip(weights, answers, strict=True)), torch.zeros_like(answers[0]))
    if not sampling.guidance_rescale:
        return total
    ratio = _spread(answers[0]) / _spread(total).clamp(min=1e-8)
    return total * (sampling.guidance_rescale * ratio + 1 - sampling.guidance_rescale)


def draw(
    answer: Callable[[Tensor, int], Sequence[Tensor]],
    noise: Tensor,
    config: Mapping[str, Any],
    sampling: Sampling,
    alphas: Sequence[float],
    *,
    start: Tensor | None = None,
) -> Tensor:
    """The end of the trajectory that starts at `noise`, (B,C,h,w) float32.

    answer  (latents, timestep) -> the velocities of `branches(sampling)`, float32
    config  the model's scheduler configuration; alphas: its zero-SNR table
    start   for a strength below 1: the latent that the noise covers in part, (B,C,h,w) float32
    """
    solver, latent = _solver(config, sampling), noise
    skipped = sampling.steps - max(1, round(sampling.strength * sampling.steps))
    if start is not None:
        latent = noised(start, noise, torch.tensor(alphas[int(solver.timesteps[skipped])]))
    solver.set_begin_index(skipped)
    for number, timestep in enumerate(solver.timesteps[skipped:]):
        answers = answer(latent, int(timestep))
        if sampling.reference_sigmas:
            sigma = ((1 - alphas[number]) / alphas[number]) ** 0.5
            shifted = guide([latent - sigma * value for value in answers], sampling)
            guided = (latent - shifted) / sigma
        else:
            guided = guide(answers, sampling)
        latent = solver.step(guided, timestep, latent).prev_sample
    return latent


def _solver(config: Mapping[str, Any], sampling: Sampling) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    betas = {name: config[name] for name in names if name in config}
    settings: dict[str, Any] = {
        **betas,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": sampling.spacing,
        "final_sigmas_type": "sigma_min",
    }
    solver = DPMSolverMultistepScheduler(**settings)
    with warnings.catch_warnings():
        # Of its own making, in the way it turns a tensor into an array.
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        # Its tables stay on the CPU: reading a timestep from them does not wait for a device.
        solver.set_timesteps(sampling.steps)
    return solver


def _spread(x: Tensor) -> Tensor:
    return x.std(dim=(1, 2, 3), keepdim=True)
