"""ComfyUI's two formats for one list of nodes: the editor's (nodes, wires, places) and the server's.

An input is either a value, which the editor keeps in the order of the node's definition, or a link to another node's output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Link", "Node", "Workflow"]

Link = tuple[int, int]
"""A node's id and the place of one of its outputs."""

_WIDGETS = ("BOOLEAN", "COMBO", "FLOAT", "INT", "STRING")
# Inputs in the order of the node's definition, which is the order of its widgets; outputs.
_SHAPES: Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]] = {
    "BasicGuider": ({"model": "MODEL", "conditioning": "CONDITIONING"}, ("GUIDER",)),
    "BasicScheduler": ({"model": "MODEL", "scheduler": "COMBO", "steps": "INT", "denoise": "FLOAT"}, ("SIGMAS",)),
    "CLIPTextEncode": ({"text": "STRING", "clip": "CLIP"}, ("CONDITIONING",)),
    "CheckpointLoaderSimple": ({"ckpt_name": "COMBO"}, ("MODEL", "CLIP", "VAE")),
    "DisableNoise": ({}, ("NOISE",)),
    "EmptyImage": ({"width": "INT", "height": "INT", "batch_size": "INT", "color": "INT"}, ("IMAGE",)),
    "ImageBlend": (
        {"image1": "IMAGE", "image2": "IMAGE", "blend_factor": "FLOAT", "blend_mode": "COMBO"},
        ("IMAGE",),
    ),
    "ImageInvert": ({"image": "IMAGE"}, ("IMAGE",)),
    "ImageScale": (
        {"image": "IMAGE", "upscale_method": "COMBO", "width": "INT", "height": "INT", "crop": "COMBO"},
        ("IMAGE",),
    ),
    "ImageToMask": ({"image": "IMAGE", "channel": "COMBO"}, ("MASK",)),
    "KSamplerSelect": ({"sampler_name": "COMBO"}, ("SAMPLER",)),
    "LoadImage": ({"image": "COMBO"}, ("IMAGE", "MASK")),
    "LoraLoaderModelOnly": ({"model": "MODEL", "lora_name": "COMBO", "strength_model": "FLOAT"}, ("MODEL",)),
    "MaskComposite": (
        {"destination": "MASK", "source": "MASK", "x": "INT", "y": "INT", "operation": "COMBO"},
        ("MASK",),
    ),
    "MaskToImage": ({"mask": "MASK"}, ("IMAGE",)),
    "ModelSamplingDiscrete": ({"model": "MODEL", "sampling": "COMBO", "zsnr": "BOOLEAN"}, ("MODEL",)),
    "SamplerCustomAdvanced": (
        {"noise": "NOISE", "guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS", "latent_image": "LATENT"},
        ("LATENT", "LATENT"),
    ),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, ()),
    "SetFirstSigma": ({"sigmas": "SIGMAS", "sigma": "FLOAT"}, ("SIGMAS",)),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "VAEEncode": ({"pixels": "IMAGE", "vae": "VAE"}, ("LATENT",)),
}
# Of what the editor draws, in its pixels.
_WIDTH, _GAP, _PREVIEW, _TEXT, _NOTE_WIDTH, _NOTE_HEIGHT = 300, 60, 260, 120, 380, 460


@dataclass(frozen=True)
class Node:
    """inputs: name -> a value, or the Link it comes from."""

    id: int
    kind: str
    title: str
    inputs: Mapping[str, Any]

    @property
    def links(self) -> dict[str, Link]:
        """The linked inputs, in the definition's order."""
        return {name: self.inputs[name] for name, kind in _SHAPES[self.kind][0].items() if kind not in _WIDGETS}

    @property
    def widgets(self) -> list[Any]:
        """The other inputs' values, in the definition's order."""
        return [self.inputs[name] for name, kind in _SHAPES[self.kind][0].items() if kind in _WIDGETS]

    @property
    def height(self) -> int:
        """In the editor, pixels."""
        kinds, outputs = _SHAPES[self.kind]
        taken = 30 * max(len(self.links), len(outputs)) + 30 * len(self.widgets)
        return taken + 20 + _PREVIEW * (self.kind in ("LoadImage", "SaveImage")) + _TEXT * ("text" in kinds)


@dataclass(frozen=True)
class Workflow:
    """One list of nodes in ComfyUI's two formats, and what its note says."""

    nodes: Sequence[Node]
    note: str

    @property
    def prompt(self) -> dict[str, Any]:
        """The server's format, what POST /prompt takes as "prompt"."""
        return {
            str(node.id): {
                "class_type": node.kind,
                "inputs": {k: [str(v[0]), v[1]] if isinstance(v, tuple) else v for k, v in node.inputs.items()},
                "_meta": {"title": node.title},
            }
            for node in self.nodes
        }

    @property
    def editor(self) -> dict[str, Any]:
        """The editor's format, what File > Open takes: every node in a column right of what it needs."""
        wires = [(node, name, link) for node in self.nodes for name, link in node.links.items()]
        links = [
            [number, *link, node.id, list(node.links).index(name), _SHAPES[node.kind][0][name]]
            for number, (node, name, link) in enumerate(wires, 1)
        ]
        places = _places(self.nodes)
        drawn = [_drawn(node, order, places[node.id], links) for order, node in enumerate(self.nodes)]
        last = max(node.id for node in self.nodes) + 1
        return {
            "last_node_id": last,
            "last_link_id": len(links),
            "nodes": [*drawn, _note(last, len(drawn), self.note)],
            "links": links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def files(self) -> dict[str, str]:
        """File name -> JSON text."""
        both = {"workflow.json": self.editor, "workflow_api.json": self.prompt}
        return {name: json.dumps(data, indent=2, ensure_ascii=False) + "\n" for name, data in both.items()}


def _places(nodes: Sequence[Node]) -> dict[int, tuple[int, int]]:
    """(x, y) of each node: as far right as what it feeds allows, nodes of a column below one another."""
    behind: dict[int, int] = {}
    for node in reversed(nodes):  # what a node feeds comes after it
        fed = [behind[other.id] + 1 for other in nodes if any(link[0] == node.id for link in other.links.values())]
        behind[node.id] = max(fed, default=0)
    last = max(behind.values())
    places, filled = {}, dict.fromkeys(range(last + 1), 0)
    for node in nodes:
        column = last - behind[node.id]
        places[node.id] = (column * (_WIDTH + _GAP), filled[column])
        filled[column] += node.height + _GAP
    return places


def _drawn(node: Node, order: int, place: tuple[int, int], links: Sequence[Sequence[Any]]) -> dict[str, Any]:
    kinds, outputs = _SHAPES[node.kind]
    into = {link[4]: link[0] for link in links if link[3] == node.id}
    out = [[link[0] for link in links if link[1:3] == [node.id, slot]] for slot in range(len(outputs))]
    upload = ["image"] if node.kind == "LoadImage" else []  # the upload button's own value
    return {
        "id": node.id,
        "type": node.kind,
        "title": node.title,
        "pos": list(place),
        "size": [_WIDTH, node.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [{"name": name, "type": kinds[name], "link": into[slot]} for slot, name in enumerate(node.links)],
        "outputs": [
            {"name": kind, "type": kind, "links": found, "slot_index": slot}
            for slot, (kind, found) in enumerate(zip(outputs, out, strict=True))
        ],
        "properties": {"Node name for S&R": node.kind},
        "widgets_values": node.widgets + upload,
    }


def _note(number: int, order: int, text: str) -> dict[str, Any]:
    """Left of the other nodes. The server never sees it."""
    return {
        "id": number,
        "type": "Note",
        "title": "Read me",
        "pos": [-_NOTE_WIDTH - _GAP, 0],
        "size": [_NOTE_WIDTH, _NOTE_HEIGHT],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {"text": ""},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }
