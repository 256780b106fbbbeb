"""transformers' ZoeDepth from a folder, whole or not at all, with K's range put right."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from torch import nn

from ilora_core.errors import WeightsError, first_line
from ilora_core.pretrained import load_pretrained
from ilora_zoedepth.architecture import FAR_M, variant_of

__all__ = ["load_network", "settings"]

_log = logging.getLogger("ilora")


def load_network(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(network in float32 and eval mode, plain facts: variant, range_m and, where it was, `repaired`).

    A K that stops at 10 m, as the published ones do, gets its 80 m: its bins are fractions of the range, so every depth
    was an eighth of what it is. Raises WeightsError for a folder that is incomplete or holds something else.
    """
    from transformers import ZoeDepthForDepthEstimation

    config = _read_config(folder)
    facts: dict[str, Any] = {"variant": variant_of(config)}
    bins = config.bin_configurations[0]
    if facts["variant"] == "k" and bins["max_depth"] <= FAR_M["n"]:
        facts["repaired"] = f"range of K: {bins['max_depth']:g} m in the weights' config.json, {FAR_M['k']:g} m here"
        _log.warning("%s: %s", folder, facts["repaired"])
        config.bin_configurations = [{**bins, "max_depth": FAR_M["k"]}]
    facts["range_m"] = [bins["max_depth"] for bins in config.bin_configurations]
    return load_pretrained(ZoeDepthForDepthEstimation, folder, exact=True, options={"config": config}), facts


def settings(net: nn.Module) -> list[Any]:
    """What decides a network's answers beside its tensors and their shapes."""
    config: Any = net.config
    return [config.bin_configurations, config.bin_centers_type, config.backbone_config.layer_norm_eps]


def _read_config(folder: Path) -> Any:
    from transformers import ZoeDepthConfig

    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(f"{folder} holds no config.json. It should be a folder as Intel/zoedepth-nyu-kitti has it.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        kind = data.get("model_type")
        config = ZoeDepthConfig.from_dict(data) if kind == "zoedepth" else None
    except Exception as error:  # ValueError, TypeError, StrictDataclassError …, by version
        raise WeightsError(f"{path} cannot be read as ZoeDepth's configuration: {first_line(error)}.") from error
    if config is None:
        raise WeightsError(f"{path} describes a {kind or 'model of no kind'}, not a zoedepth.")
    return config
