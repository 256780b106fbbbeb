"""A generator with its adapter as one ONNX file that draws a map without ilora, without torch and without Python.

    input   "picture", float32 (B,3,H,W), RGB, sRGB-encoded, in [0,1]; H and W fixed, B free
    output  named after the intrinsic, float32 (B,C,H,W): the map in its physical unit, as `Intrinsic.from_picture` gives it

The graph is encode -> network with the adapter -> decode -> map, in float32; the prompt's embeddings are constants in it, so
no text encoder is needed. A file's `metadata_props` say what it draws, from what and under which licences.

Only generators that draw in one deterministic pass and can encode pictures make one graph (`one_pass`, see
`ilora_core.protocols.Generator`). What is written is compared with the Predictor by onnxruntime before it takes its place.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ilora_core import __version__
from ilora_core.errors import CannotEncode, ConfigError, DataError, IloraError, MissingDependency, first_line
from ilora_core.intrinsics import Intrinsic
from ilora_core.predict import Predictor
from ilora_core.protocols import Generator

__all__ = ["OnnxReport", "export_onnx"]

TOLERANCE = 1e-3
"""The largest accepted difference to the Predictor's map, as a share of the map's range."""
LARGEST_FILE = 1_900_000_000
"""Bytes of weights in the .onnx file itself; more go into a file beside it. protobuf ends at 2 GiB."""
MOST_PICTURES = 63
"""At once: from 64 on, diffusers' upsampling takes another way through the graph."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxReport:
    """What was written.

    path           the .onnx file; weights beyond LARGEST_FILE lie beside it, in the same name with ".data"
    opset          of ONNX's own operators
    max_abs_error  largest difference between onnxruntime's map and the Predictor's, in the map's unit
    size_mb        10^6 bytes, of both files
    """

    path: Path
    opset: int
    max_abs_error: float
    size_mb: float


def export_onnx(predictor: Predictor, path: Path, *, size: tuple[int, int] | None = None) -> OnnxReport:
    """Write and check one .onnx file. The predictor holds exactly one adapter and runs in float32.

    size  (H, W) of the pictures that the file will take, multiples of the generator's stride; None = its own resolution

    Raises MissingDependency without the packages of the extra `onnx`, ConfigError for a generator or a size that cannot be
    one graph, and IloraError when the file's maps are not the Predictor's; then there is no file.
    """
    _require_packages()
    intrinsic, generator = _only_intrinsic(predictor), predictor.generator
    _refuse(generator)
    size = _checked_size(generator, size)
    device = next(generator.net.parameters()).device
    generator.to("cpu")
    try:
        pictures = _pictures(size)
        wanted = predictor(pictures, process="full")[intrinsic.name]
        program = _traced(_Drawing(generator, intrinsic), pictures, intrinsic)
    finally:
        generator.to(device)
    program.model.metadata_props.update(_metadata(predictor, intrinsic, size))
    return _written(program, Path(path), pictures, wanted, intrinsic)


class _Drawing(nn.Module):
    """picture -> map. The generator's networks are registered, so that their weights become the graph's."""

    def __init__(self, generator: Generator, intrinsic: Intrinsic):
        super().__init__()
        self.generator, self.intrinsic = generator, intrinsic
        self.networks = nn.ModuleDict({name: v for name, v in vars(generator).items() if isinstance(v, nn.Module)})

    def forward(self, picture: Tensor) -> Tensor:
        drawn = self.generator.render(self.generator.encode(picture), self.intrinsic)
        return self.intrinsic.from_picture(drawn.float())


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"ONNX export needs {', '.join(missing)}, not installed here: pip install 'ilora[onnx]'"
        )


def _only_intrinsic(predictor: Predictor) -> Intrinsic:
    if len(predictor.adapters) != 1:
        raise ConfigError(
            f"an ONNX file draws one map, and this predictor has {', '.join(predictor.adapters)}. Give one adapter, and "
            "export the others each to a file of its own."
        )
    return predictor.intrinsics[next(iter(predictor.adapters))]


def _refuse(generator: Any) -> None:
    """Raise ConfigError for a generator that is no single graph from a picture to a map."""
    name = type(generator).__name__
    if getattr(generator, "inverts", False):
        raise ConfigError(
            f"{name} finds a picture's codes by a search, which is no graph: it cannot be exported as ONNX."
        )
    if not getattr(generator, "one_pass", False):
        try:
            generator.encode(torch.zeros(1, 3, *generator.resolution))
        except CannotEncode as error:
            raise ConfigError(
                f"{name} has no encoder from a picture to its codes, so no graph leads from a picture to a map: it cannot be "
                "exported as ONNX."
            ) from error
        raise ConfigError(
            f"{name} does not draw a map in one deterministic pass (it takes several steps, or does not say `one_pass`), "
            "and an ONNX file holds one pass. Export an adapter of a one-step generator."
        )
    if any(parameter.dtype != torch.float32 for parameter in generator.net.parameters()):
        raise ConfigError("ONNX files are written in float32: load the predictor with --set runtime.precision=fp32.")


def _checked_size(generator: Generator, size: tuple[int, int] | None) -> tuple[int, int]:
    height, width = size or generator.resolution
    if min(height, width) < 1 or height % generator.stride or width % generator.stride:
        raise ConfigError(f"the size must be multiples of {generator.stride}, and {width}×{height} pixels is not.")
    return height, width


def _pictures(size: tuple[int, int]) -> Tensor:
    """Two pictures, (2,3,H,W): noise; and a disc before a ramp, with flat areas and edges as a photograph has them."""
    noise = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    ramp = torch.stack([(x + 1) / 2, (y + 1) / 2, (x + y + 2) / 4])
    disc = torch.tensor([0.8, 0.3, 0.1]).view(3, 1, 1)
    return torch.stack([noise, torch.where(x.square() + y.square() < 0.4, disc, ramp)])


def _traced(drawing: nn.Module, pictures: Tensor, intrinsic: Intrinsic) -> Any:
    """torch's ONNXProgram. Raises ConfigError when the generator's code cannot be traced."""
    try:
        with torch.no_grad():
            return torch.onnx.export(
                drawing.eval(),
                (pictures,),
                dynamo=True,
                input_names=["picture"],
                output_names=[intrinsic.name],
                dynamic_shapes=({0: torch.export.Dim("batch", max=MOST_PICTURES)},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ConfigError(f"torch cannot write this generator as one graph: {first_line(error)}.") from error


def _metadata(predictor: Predictor, intrinsic: Intrinsic, size: tuple[int, int]) -> dict[str, str]:
    artefact = predictor.artefacts[0]
    return {
        "ilora": __version__,
        "intrinsic": json.dumps(intrinsic.predicted().to_json()),
        "prompt": intrinsic.prompt,
        "generator": artefact.generator,
        "licences": json.dumps(dict(artefact.record.get("licences", {}))),
        "height": str(size[0]),
        "width": str(size[1]),
    }


def _written(program: Any, path: Path, pictures: Tensor, wanted: Tensor, intrinsic: Intrinsic) -> OnnxReport:
    """Save under a temporary name, check, and only then take the place of `path`."""
    beside = path.with_name(f"{path.name}.data")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            # Under their final names: the graph refers to its weights by the file's.
            graph, weights = Path(folder, path.name), Path(folder, beside.name)
            program.save(str(graph), external_data=_weight_bytes(program) > LARGEST_FILE)
            error = _largest_error(graph, pictures, wanted, intrinsic)
            size = sum(file.stat().st_size for file in (graph, weights) if file.exists())
            if weights.exists():
                os.replace(weights, beside)
                os.replace(graph, path)
            else:
                os.replace(graph, path)
                beside.unlink(missing_ok=True)  # of a larger export that had this name
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}.") from error
    return OnnxReport(path, int(program.model.opset_imports[""]), error, size / 1e6)


def _weight_bytes(program: Any) -> int:
    return sum(value.const_value.nbytes for value in program.model.graph.initializers.values())


def _largest_error(graph: Path, pictures: Tensor, wanted: Tensor, intrinsic: Intrinsic) -> float:
    """Against the Predictor, for the pictures together and for one alone. Raises IloraError when it is too large."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in (slice(0, 2), slice(1, 2)):
        answers: Any = session.run([intrinsic.name], {"picture": pictures[rows].numpy()})
        difference = torch.from_numpy(answers[0]) - wanted[rows]
        worst = max(worst, float(difference.abs().nan_to_num(nan=torch.inf).max()))
    limit = TOLERANCE * _range(intrinsic)
    if worst > limit:
        raise IloraError(
            f"the map of {intrinsic.name} that onnxruntime draws differs by up to {worst:.3g} from ilora's, and {limit:.3g} is "
            "the most that is accepted, so no file was written. Where a picture becomes codes of a codebook, a near tie can do "
            "this: try another --size. Otherwise please report it, with the versions of torch, onnxscript and onnxruntime."
        )
    return worst


def _range(intrinsic: Intrinsic) -> float:
    if intrinsic.encoding in ("relative_depth", "shading"):
        return 1.0
    return intrinsic.high - intrinsic.low
