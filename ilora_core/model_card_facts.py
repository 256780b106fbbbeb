"""What a model card says of an artefact's run.json: conventions of its map, base model, recipe, scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ilora_core.config import TrainConfig, build
from ilora_core.errors import ConfigError
from ilora_core.evaluate_results import Results, leading_figures
from ilora_core.hub import is_hub_id
from ilora_core.intrinsics import Intrinsic
from ilora_core.licences import registered_weights
from ilora_core.metrics import get_metric
from ilora_core.registry import load_registry

__all__ = [
    "base_model",
    "drawn_by",
    "file_name",
    "held_out_row",
    "recipe_rows",
    "result_rows",
    "scores_of",
    "what_it_draws",
]


def drawn_by(record: Mapping[str, Any]) -> str:
    """The title: which map, by which generator."""
    return f"{record['intrinsic']['name']} drawn by {record['generator']['name']}"


def base_model(record: Mapping[str, Any]) -> str:
    """The generator's hub id; "" for weights that are on no hub, or not known to be."""
    known = registered_weights(record)
    sources = load_registry().weights[known].sources if known else ()
    given = str(record["generator"].get("settings", {}).get("weights") or "")
    served = str(record["generator"].get("provenance", {}).get("served_by", ""))
    places = [*sources, *([given] if served == given else [])]
    return next((place for place in places if is_hub_id(place)), "")


def file_name(path: object) -> str:
    """The last part of a path of either kind; other text as it is."""
    return PurePosixPath(PureWindowsPath(str(path)).as_posix()).name or str(path)


def what_it_draws(intrinsic: Intrinsic) -> str:
    """The map's channels, axes, unit and range, and how its picture holds it."""
    channels = intrinsic.channels
    count = "one channel" if channels == 1 else f"{channels} channels"
    low, high = f"{intrinsic.low:g}", f"{intrinsic.high:g}"
    encoding = intrinsic.encoding
    if encoding == "unit_vector":
        return (
            "Surface normals: unit vectors, three channels in [-1, 1], in the OpenCV camera frame: x right, y down, z forward; a "
            "surface that faces the camera has n_z < 0. The picture that the generator draws holds (n + 1) / 2. "
            "`ilora predict --normals opengl` or `directx` writes other axes."
        )
    if encoding == "relative_depth":
        near = intrinsic.kind == "affine_disparity"
        kind = "Disparity (1/depth), 1 = near" if near else "Depth along z, 0 = near, 1 = far"
        return (
            f"{kind}: one channel in [0, 1], relative: up to one scale and one shift per picture, no metres. The picture that "
            "the generator draws is bright where things are near."
        )
    if encoding == "shading":
        return (
            f"Shading: linear, {count}, up to one scale per picture; 1 is the picture's white level. The picture that the "
            "generator draws is sRGB-encoded."
        )
    unit = f", unit: {intrinsic.unit}" if intrinsic.unit not in ("", "linear") else ""
    held = "sRGB-encoded" if encoding == "srgb" else "linear"
    return (
        f"{intrinsic.name}: {count} in [{low}, {high}]{unit}. The picture that the generator draws holds "
        f"(v - {low}) / ({high} - {low}), {held}; the map itself is linear."
    )


def recipe_rows(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a fit was made of: data, labels, settings, versions. config: adapter_config.json."""
    settings = record.get("config", {}).get("settings", {})
    data, versions = record.get("data", {}), record.get("versions", {})
    train = _training(settings.get("train", {})) if "config" in record else {}
    given = settings.get("generator", {}).get("weights")
    rows = [
        (
            "base",
            base_model(record) or (f"{record['generator']['name']}, weights `{file_name(given)}`" if given else ""),
        ),
        ("imported from", _imported(record.get("imported", {}))),
        ("training pictures", data.get("train")),
        ("held out for validation", data.get("validation")),
        ("pictures from", _origin(record.get("config", {}))),
        ("labels by", _labelers(record.get("labels", {}))),
        ("adapter", record.get("adapter")),
        ("rank", config.get("r")),
        ("steps", record.get("steps")),
        ("kept from step", (record.get("best") or {}).get("step")),
        *((name, train.get(name)) for name in ("batch", "lr", "schedule", "seed")),
        ("prompt", record["intrinsic"].get("prompt")),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in ("ilora", "torch", "peft") if name in versions)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def held_out_row(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """(metric with its unit, value, number of pictures) of the validation that the adapter was kept for."""
    best = record.get("best") or {}
    if best.get("value") is None:
        return "", "not validated", ""
    return (
        best["metric"] + _unit(best["metric"]),
        f"{best['value']:.4g}",
        str(record.get("data", {}).get("validation", "")),
    )


def result_rows(results: Results) -> list[tuple[str, ...]]:
    """The leading figures of every evaluation, with intervals where there are any."""
    rows = []
    for protocol, methods in results.items():
        for method, found in methods.items():
            for name in leading_figures(found):
                figure = found.figures[name]
                known = figure.low == figure.low  # NaN: fewer than two pictures
                interval = f"[{figure.low:.4g}, {figure.high:.4g}]" if known else "none"
                unit = f" {figure.unit}" if figure.unit else ""
                rows.append((protocol, method, name, f"{figure.value:.4g}{unit}", interval, str(found.n)))
    return rows


def scores_of(record: Mapping[str, Any], results: Results) -> list[dict[str, Any]]:
    """The fields of huggingface_hub's EvalResult: the validation, and each protocol's first method."""
    task, name = {"task_type": "image-to-image"}, record["intrinsic"]["name"]
    scores = []
    best, held = record.get("best") or {}, record.get("data", {}).get("validation")
    if best.get("value") is not None:
        dataset = {"dataset_type": "held-out", "dataset_name": f"{name}: held-out pictures of the fit ({held})"}
        scores.append({**task, **dataset, "metric_type": best["metric"], "metric_value": _rounded(best["value"])})
    for protocol, methods in results.items():
        found = next(iter(methods.values()))
        dataset = {
            "dataset_type": "evaluation",
            "dataset_name": f"{name}: evaluation by {protocol} ({found.n} pictures)",
        }
        for figure in leading_figures(found):
            if (value := found.figures[figure].value) == value:
                metric = {"metric_type": f"{figure}@{protocol}", "metric_value": _rounded(value)}
                scores.append({**task, **dataset, **metric})
    return scores


def _rounded(value: float) -> float:
    """Six digits: more would claim what no validation can."""
    return float(f"{value:.6g}")


def _training(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe with its defaults; what is recorded where another version of ilora had other settings."""
    try:
        return vars(build(TrainConfig, "train", given))
    except ConfigError:
        return given


def _origin(config: Mapping[str, Any]) -> str:
    if config.get("samples"):
        return "the generator's own samples"
    if config.get("pairs"):
        return "a folder of pairs"
    if config.get("pictures"):
        return "a folder of pictures"
    return f"source {config['source']}" if config.get("source") else ""


def _imported(told: Mapping[str, Any]) -> str:
    """The file of another tool that an adapter came from."""
    return f"{told['file']}, {told['layout']} layout, SHA-256 {told['sha256']}" if told else ""


def _labelers(labels: Mapping[str, Any]) -> str:
    """`name@version (weights 1a2b3c…)` of one labeler or of each of a mix."""
    told = []
    for one in labels.get("labelers", [labels] if labels else []):
        weights = str(one.get("weights_hash", "")).removeprefix("sha256:")[:12]
        told.append(
            f"{one.get('labeler', '?')}@{one.get('version', '?')}" + (f" (weights {weights})" if weights else "")
        )
    mixed = f", mixed by {labels['mix']}" if "mix" in labels else ""
    return ", ".join(told) + mixed


def _unit(metric: str) -> str:
    try:
        unit = get_metric(metric).unit
    except ConfigError:  # a plugin's, which is not installed here
        return ""
    return f" ({unit})" if unit else ""
