"""What every generator holds to as something to train, with the core's LoRA on its own default targets.

`bit for bit` means torch.equal.
"""

from __future__ import annotations

import torch

from ilora_core.intrinsics import BUILT_IN, NORMALS
from ilora_core.testing.cases import Subject, require, skip
from ilora_core.testing.exercise import (
    CUSTOM,
    attach_lora,
    disturb,
    loss_of,
    parameters_of,
    same_codes,
    targets_for,
)

__all__ = [
    "check_attach_is_identity",
    "check_disabled_restores",
    "check_gradient_reaches_adapter_only",
    "check_loss_is_finite_per_sample",
    "check_masked_pixels_do_not_matter",
    "check_save_and_load_is_exact",
    "check_steps_lower_the_loss",
    "check_targets_match",
    "check_weights_count",
]


def check_targets_match(subject: Subject) -> None:
    """The default targets name layers that a LoRA can attach to."""
    generator = subject.make()
    adapter = attach_lora(generator)
    require(list(adapter.parameters()), f"targets {generator.targets!r} match no layer of net.")


def check_attach_is_identity(subject: Subject) -> None:
    """A fresh adapter changes nothing, bit for bit."""
    generator = subject.make()
    codes = generator.sample(2, seed=7)
    before = generator.render(codes, NORMALS), generator.picture(codes)
    attach_lora(generator)
    after = generator.render(codes, NORMALS), generator.picture(codes)
    require(torch.equal(before[0], after[0]), "render changes when a fresh adapter is attached.")
    require(torch.equal(before[1], after[1]), "picture changes when a fresh adapter is attached.")


def check_disabled_restores(subject: Subject) -> None:
    """A trained adapter changes render, never picture; without it render is the bare network's, bit for bit."""
    generator = subject.make()
    codes = generator.sample(2, seed=8)
    bare, picture = generator.render(codes, NORMALS), generator.picture(codes)
    adapter = disturb(attach_lora(generator))
    require(
        not torch.equal(generator.render(codes, NORMALS), bare),
        "an adapter with weights in it changes nothing: render bypasses `net`, or runs it with adapters off.",
    )
    require(torch.equal(generator.picture(codes), picture), "picture changes with the adapter. Draw it with them off.")
    with adapter.disabled():
        require(torch.equal(generator.render(codes, NORMALS), bare), "render is not restored with the adapter off.")
    require(not torch.equal(generator.render(codes, NORMALS), bare), "the adapter stays off after `disabled()`.")


def check_loss_is_finite_per_sample(subject: Subject) -> None:
    """(B,) float32, finite, for every built-in intrinsic and a user's own; also when no pixel is valid."""
    generator = subject.make()
    codes = generator.sample(2, seed=9)
    for intrinsic in (*BUILT_IN.values(), CUSTOM):
        target, valid = targets_for(generator, intrinsic)
        for mask, what in ((valid, ""), (torch.zeros_like(valid), " where no pixel is valid")):
            loss = loss_of(generator, codes, intrinsic, target, mask)
            require(
                loss.shape == (2,), f"loss of {intrinsic.name}: one figure per sample, (2,), not {tuple(loss.shape)}."
            )
            require(loss.dtype == torch.float32, f"loss is float32, not {loss.dtype}.")
            require(torch.isfinite(loss).all(), f"loss of {intrinsic.name} is {loss.tolist()}{what}.")


def check_gradient_reaches_adapter_only(subject: Subject) -> None:
    """Every parameter of the adapter gets a finite gradient, nothing else gets one."""
    generator = subject.make()
    adapter = disturb(attach_lora(generator))
    codes = generator.sample(2, seed=10)
    loss_of(generator, codes, NORMALS, *targets_for(generator, NORMALS)).mean().backward()
    own = list(adapter.parameters())
    missing = sum(p.grad is None or not torch.isfinite(p.grad).all() for p in own)
    require(not missing, f"{missing} of {len(own)} adapter parameters get no finite gradient from the loss.")
    require(any(p.grad is not None and p.grad.abs().max() > 0 for p in own), "every gradient of the adapter is zero.")
    mine = {id(p) for p in own}
    leaks = [name for name, p in parameters_of(generator) if id(p) not in mine and p.grad is not None]
    require(not leaks, f"{len(leaks)} frozen parameters get a gradient ({', '.join(leaks[:3])}). Freeze them.")


def check_masked_pixels_do_not_matter(subject: Subject) -> None:
    """What stands in pixels that are not valid changes no loss; what stands in the others does."""
    generator = subject.make()
    codes = generator.sample(2, seed=11)
    target, valid = targets_for(generator, NORMALS)
    valid = valid.clone()
    height, width = generator.resolution
    valid[:, :, : height // 4 + 1, : width // 4 + 1] = False
    other = torch.where(valid, target, 1 - target)
    base, masked, seen = (
        loss_of(generator, codes, NORMALS, t, valid) for t in (target, other, torch.where(valid, 1 - target, target))
    )
    difference = float((base - masked).abs().max())
    require(difference <= 1e-6, f"the loss moves by {difference:.2g} with pixels that are not valid.")
    require(float((base - seen).abs().max()) > 1e-6, "the loss does not depend on the valid pixels.")


def check_weights_count(subject: Subject) -> None:
    """Weights of 0 and 1 are a mask, one factor for all changes nothing, and other weights change the loss."""
    generator = subject.make()
    if not getattr(generator, "takes_weights", False):
        skip("it does not say `takes_weights = True`, so it is only given masks")
    codes = generator.sample(2, seed=14)
    target, valid = targets_for(generator, NORMALS)
    valid = valid.clone()
    height, width = generator.resolution
    valid[:, :, : height // 4 + 1, : width // 4 + 1] = False
    tilted = valid.float()
    tilted[..., width // 2 :] *= 0.25
    masked, ones, halves, moved = (
        loss_of(generator, codes, NORMALS, target, v) for v in (valid, valid.float(), valid * 0.5, tilted)
    )
    for other, what in ((ones, "weights of 0 and 1"), (halves, "weights of 0 and 1/2")):
        difference = float((masked - other).abs().max())
        require(difference <= 1e-5, f"{what} move the loss of the same mask by {difference:.2g}.")
    require(float((masked - moved).abs().max()) > 1e-6, "a smaller weight on half of the picture changes nothing.")


def check_steps_lower_the_loss(subject: Subject) -> None:
    """Twenty Adam steps on two samples lower the loss, at one of three learning rates."""
    best, start = float("inf"), float("inf")
    for rate in (1e-2, 1e-3, 1e-1):
        generator = subject.make()
        adapter = attach_lora(generator)
        codes = generator.sample(2, seed=12)
        target, valid = targets_for(generator, NORMALS)
        optimiser = torch.optim.Adam(adapter.parameters(), lr=rate)
        for step in range(20):
            loss = loss_of(generator, codes, NORMALS, target, valid).mean()
            start = float(loss.detach()) if step == 0 else start
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            best = min(best, float(loss_of(generator, codes, NORMALS, target, valid).mean()))
        if best < start * 0.999:
            return
    require(False, f"twenty steps leave the loss at {best:.6g}; it began at {start:.6g}.")


def check_save_and_load_is_exact(subject: Subject) -> None:
    """The adapter's state, loaded onto a second miniature, renders the same bits."""
    first, second = subject.make(), subject.make()
    codes = first.sample(2, seed=13)
    require(same_codes(codes, second.sample(2, seed=13)), "two miniatures differ: fix the seed of `tiny`'s weights.")
    trained, loaded = disturb(attach_lora(first)), attach_lora(second)
    loaded.load_state_dict(trained.state_dict())
    require(
        torch.equal(first.render(codes, NORMALS), second.render(codes, NORMALS)),
        "a saved and loaded adapter renders something else.",
    )
