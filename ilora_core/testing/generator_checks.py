"""What every generator holds to as a maker of pictures; as something to train, see `generator_fit_checks`.

Where a batch is split, BLAS may sum in another order, and 1e-4 is allowed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ilora_core.errors import CannotEncode
from ilora_core.intrinsics import ALBEDO, BUILT_IN, DEPTH, NORMALS
from ilora_core.protocols import Codes, Generator
from ilora_core.testing.cases import CheckFailed, Subject, require, skip
from ilora_core.testing.exercise import CUSTOM, attach_lora, disturb, loss_of, parameters_of, same_codes, targets_for
from ilora_core.testing.scenes import make_scenes

__all__ = [
    "check_batch_of_two_is_two_of_one",
    "check_encodes",
    "check_follows_protocol",
    "check_layouts_are_tensors",
    "check_net_is_frozen",
    "check_parks_and_returns",
    "check_pictures_in_range",
    "check_prefix_of_samples",
    "check_renders_every_intrinsic",
    "check_renders_many_as_one_by_one",
    "check_same_seed_same_codes",
    "check_shapes",
]

_CLOSE = 1e-4


def check_follows_protocol(subject: Subject) -> None:
    """It has every attribute and method of `ilora_core.protocols.Generator`."""
    generator = subject.make()
    names = {*Generator.__annotations__, *(n for n in vars(Generator) if not n.startswith("_"))}
    missing = sorted(name for name in names if not hasattr(generator, name))
    require(not missing, f"a generator also needs: {', '.join(missing)} (ilora_core.protocols.Generator).")
    require(isinstance(generator.net, nn.Module), f"net is a torch module, not {type(generator.net).__name__}.")


def check_shapes(subject: Subject) -> None:
    """Codes lead with B (or 1); pictures are float32 (B,3,H,W) of `resolution`, whose sides are multiples of stride."""
    generator = subject.make()
    height, width = generator.resolution
    require(
        height % generator.stride == 0 and width % generator.stride == 0,
        f"resolution {(height, width)} is no multiple of stride {generator.stride}.",
    )
    for batch in (1, 3):
        codes = generator.sample(batch, seed=0)
        _require_codes(codes, batch)
        for what, value in (("picture", generator.picture(codes)), ("render", generator.render(codes, NORMALS))):
            _require_picture(value, (batch, 3, height, width), what)


def check_pictures_in_range(subject: Subject) -> None:
    """Pictures and renders are in [0,1], whatever the network's own range is."""
    generator = subject.make()
    codes = generator.sample(2, seed=1)
    for what, value in (("picture", generator.picture(codes)), ("render", generator.render(codes, NORMALS))):
        low, high = float(value.min()), float(value.max())
        require(
            low >= 0 and high <= 1, f"{what} spans {low:.3g} to {high:.3g}; everything outside a plugin is in [0,1]."
        )
        require(high > low, f"{what} is constant ({low:.3g}).")


def check_same_seed_same_codes(subject: Subject) -> None:
    """sample(n, seed) depends on its arguments alone, and its samples differ."""
    generator = subject.make()
    first, second, other = (generator.sample(2, seed=seed) for seed in (3, 3, 4))
    require(same_codes(first, second), "the same seed gives other codes the second time. Draw from a torch.Generator.")
    require(not same_codes(first, other), "another seed gives the same codes.")
    rows = [_row(first, i) for i in range(2)]
    require(not same_codes(*rows), "both samples of one call are the same. Mix a sample's number into its seed.")


def check_prefix_of_samples(subject: Subject) -> None:
    """The first k of n codes do not depend on n, so that a larger run extends a smaller one."""
    generator = subject.make()
    few, many = generator.sample(2, seed=5), generator.sample(4, seed=5)
    for name, value in many.items():
        kept = value[:2] if value.shape[0] == 4 else value
        require(_same(few[name], kept), f"codes[{name!r}]: the first 2 of 4 are not those of sample(2).")


def check_batch_of_two_is_two_of_one(subject: Subject) -> None:
    """A picture, a render and a loss do not depend on what else is in the batch."""
    generator = subject.make()
    codes = generator.sample(2, seed=6)
    target, valid = targets_for(generator, NORMALS)
    with torch.no_grad():
        together = _all_outputs(generator, codes, target, valid)
        apart = [_all_outputs(generator, _row(codes, i), target[i : i + 1], valid[i : i + 1], i) for i in range(2)]
    for name, value in together.items():
        difference = float((value - torch.cat([row[name] for row in apart])).abs().max())
        require(difference <= _CLOSE, f"{name} of a batch of two differs from two of one by {difference:.2g}.")


def check_net_is_frozen(subject: Subject) -> None:
    """No parameter of the generator asks for a gradient, no buffer moves, and rendering twice gives the same."""
    generator = subject.make()
    trained = [name for name, p in parameters_of(generator) if p.requires_grad]
    require(not trained, f"{len(trained)} parameters ask for a gradient ({', '.join(trained[:3])}). Freeze them.")
    kept = {name: buffer.clone() for name, buffer in generator.net.named_buffers()}
    codes = generator.sample(2, seed=0)
    first, second = generator.render(codes, NORMALS), generator.render(codes, NORMALS)
    require(torch.equal(first, second), "rendering twice gives two results. Put the network into eval mode.")
    generator.picture(codes)
    loss_of(generator, codes, NORMALS, *targets_for(generator, NORMALS))
    buffers = dict(generator.net.named_buffers())
    moved = [name for name in kept if not torch.equal(kept[name], buffers[name])]
    require(not moved, f"{len(moved)} buffers move with use ({', '.join(moved[:3])}). Put the network into eval mode.")


def check_encodes(subject: Subject) -> None:
    """Codes of real pictures, at sizes that are multiples of stride; a generator that cannot raises CannotEncode."""
    generator = subject.make()
    height, width = generator.resolution
    for size in ((height, width), (height + generator.stride, width)):
        pictures = make_scenes(*size).pictures
        try:
            codes = generator.encode(pictures)
        except CannotEncode as error:
            require(len(str(error)) > 20, "CannotEncode should say why, and what to do instead.")
            skip(f"it cannot encode: {error}")
            return
        except NotImplementedError:
            require(False, "encode raises NotImplementedError; where there is no way, raise CannotEncode and say why.")
            return
        _require_codes(codes, 2)
        _require_picture(generator.picture(codes), (2, 3, *size), f"picture of encoded {size}")
        _require_picture(generator.render(codes, NORMALS), (2, 3, *size), f"render of encoded {size}")


def check_renders_every_intrinsic(subject: Subject) -> None:
    """Any intrinsic can be rendered, a user's own too: three channels each."""
    generator = subject.make()
    codes = generator.sample(1, seed=0)
    for intrinsic in (*BUILT_IN.values(), CUSTOM):
        _require_picture(
            generator.render(codes, intrinsic), (1, 3, *generator.resolution), f"render of {intrinsic.name}"
        )


def check_renders_many_as_one_by_one(subject: Subject) -> None:
    """Where there is a `render_many`: one pass for several intrinsics, each with its own adapter, gives what `render` gives."""
    from ilora_core.adapters import LoraAdapter  # imports peft, which the other kinds' checks do without
    from ilora_core.mixture import mix

    generator = subject.make()
    if not hasattr(generator, "render_many"):
        skip("it has no `render_many`, so its maps are drawn one after the other")
    intrinsics = (NORMALS, DEPTH, ALBEDO)
    adapters = [LoraAdapter(rank=2, name=intrinsic.name) for intrinsic in intrinsics]
    for number, adapter in enumerate(adapters):
        adapter.attach(generator.net, generator.targets)
        disturb(adapter, number)
    mixture = mix(adapters)
    if mixture is None:
        raise CheckFailed(
            f"adapters on {generator.targets!r} cannot be mixed (ilora_core.mixture): leave `render_many` out."
        )
    for batch in (1, 2):
        codes, alone = generator.sample(batch, seed=14), []
        for adapter, intrinsic in zip(adapters, intrinsics, strict=True):
            adapter.activate(trainable=False)
            alone.append(generator.render(codes, intrinsic))
        mixture.activate()
        together = generator.render_many(codes, intrinsics)
        require(
            len(together) == len(intrinsics), f"render_many gives {len(together)} pictures for {len(intrinsics)} maps."
        )
        for intrinsic, one, other in zip(intrinsics, together, alone, strict=True):
            _require_picture(one, tuple(other.shape), f"render_many of {intrinsic.name}")
            difference = float((one - other).abs().max())
            require(difference <= _CLOSE, f"render_many of {intrinsic.name} is not render's, by {difference:.2g}.")


def check_parks_and_returns(subject: Subject) -> None:
    """`to` returns the generator; after `park` the loss works, and the other methods come back by themselves."""
    generator = subject.make()
    require(generator.to("cpu") is generator, "to(device) returns the generator itself.")
    codes = generator.sample(1, seed=0)
    before = generator.picture(codes)
    target, valid = targets_for(generator, NORMALS, batch=1)
    expected = loss_of(generator, codes, NORMALS, target, valid)
    generator.park()
    require(torch.equal(loss_of(generator, codes, NORMALS, target, valid), expected), "the loss changes after park().")
    require(torch.equal(generator.picture(codes), before), "picture changes after park().")


def check_layouts_are_tensors(subject: Subject) -> None:
    """`layouts` maps file names to (tensors, string metadata), or is empty."""
    generator = subject.make()
    adapter = disturb(attach_lora(generator))
    for name, (tensors, metadata) in generator.layouts(adapter.state_dict(), adapter.config()).items():
        require(name.endswith(".safetensors") and "/" not in name, f"{name!r}: a plain file name in .safetensors.")
        require(tensors and all(isinstance(t, Tensor) for t in tensors.values()), f"{name}: name -> tensor.")
        require(all(isinstance(v, str) for v in metadata.values()), f"{name}: safetensors metadata is text.")


def _all_outputs(generator: Any, codes: Codes, target: Tensor, valid: Tensor, seed: int = 0) -> dict[str, Tensor]:
    return {
        "picture": generator.picture(codes),
        "render": generator.render(codes, NORMALS),
        "loss": loss_of(generator, codes, NORMALS, target, valid, seed=seed),
    }


def _row(codes: Codes, i: int) -> Codes:
    return {name: value if value.shape[0] == 1 else value[i : i + 1] for name, value in codes.items()}


def _require_codes(codes: Codes, batch: int) -> None:
    require(codes, "codes are empty.")
    for name, value in codes.items():
        require(isinstance(value, Tensor), f"codes[{name!r}] is a tensor, not {type(value).__name__}.")
        leads = value.ndim > 0 and value.shape[0] in (1, batch)
        require(leads, f"codes[{name!r}] leads with {batch} (or 1), not {tuple(value.shape)}.")
    require(any(v.shape[0] == batch for v in codes.values()), f"no code leads with the batch of {batch}.")


def _require_picture(value: Tensor, shape: tuple[int, ...], what: str) -> None:
    require(tuple(value.shape) == shape, f"{what} is {tuple(value.shape)}; it should be {shape}.")
    require(value.dtype == torch.float32, f"{what} is float32, not {value.dtype}.")
    require(torch.isfinite(value).all(), f"{what} has values that are not finite.")
    require(value.min() >= 0 and value.max() <= 1, f"{what} leaves [0,1].")


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal; up to a hundredth of the range where many steps of a network carry the rounding of a batch onwards."""
    if a.shape != b.shape or not a.is_floating_point():
        return torch.equal(a, b)
    return float((a - b).abs().max()) <= 0.01 * float(b.abs().max())
