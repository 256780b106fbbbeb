"""What the flow transformers with joint attention share: picture and prompt tokens attend to each other, one step draws the map.

    map    z − σ T(z, 1000 σ, prompt): a flow's v = ε − x_0, read at its noisiest time, σ = 1            (output="clean")

Esser et al., arXiv 2403.03206. Stable Diffusion 3 (`ilora_sd.large`) and FLUX.1 (`ilora_sd.flux`).
"""

from __future__ import annotations

from abc import ABC
from typing import Any

from torch import Tensor

from ilora_sd.latent import ATTENTION
from ilora_sd.loading import Components
from ilora_sd.model import OneStep

__all__ = ["ADDED_PROJECTIONS", "FlowTransformer"]

ADDED_PROJECTIONS = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The prompt tokens' own projections in joint attention."""


class FlowTransformer(OneStep, ABC):
    """One step of a flow's transformer, components.unet. Conditions: "prompt" (1,L,D) and "pooled" (1,P).

    patch              latent cells per side of a token
    added_projections  put the adapter on the prompt tokens' projections too
    """

    network = "transformer"

    def __init__(
        self,
        components: Components,
        *,
        patch: int,
        timestep: int | None,
        resolution: int | None,
        noisy_target: bool,
        output: str,
        loss: str,
        added_projections: bool,
    ):
        super().__init__(
            components,
            timestep=timestep,
            resolution=resolution,
            patch=patch,
            noisy_target=noisy_target,
            output=output,
            loss=loss,
        )
        self.targets = (*ATTENTION, *ADDED_PROJECTIONS) if added_projections else ATTENTION

    def _t5(self, text: str, place: int, length: int) -> Tensor:
        """T5's last hidden states, (1,L,D) float32. place: which of the further text encoders it is."""
        indices = self._tokens(text, self.more_tokenizers[place], length)
        return self.more_text_encoders[place](indices)[0].float()

    def _scheduler(self) -> Any:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler.from_config(dict(self.scheduler_config))
