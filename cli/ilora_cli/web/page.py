"""The page of `ilora app`, in Gradio: what to draw on the left, results on the right.

A handler never raises: whatever goes wrong becomes one message on the page, and the server goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import traceback
from abc import ABCMeta
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.data_classes import ImageData
from gradio.themes import Default

from ilora_cli.explain import explain
from ilora_cli.web.files import Result, Results, accepted_picture
from ilora_cli.web.models import Drawn, Models
from ilora_cli.web.offers import Group
from ilora_cli.web.values import reading
from ilora_core.errors import CannotEncode, DataError
from ilora_core.predict import PROCESSES

__all__ = ["CSS", "EXAMPLES", "THEME", "make_page"]

_HERE = Path(__file__).parent
EXAMPLES = sorted((_HERE / "examples").glob("*.jpg"))
CSS = (_HERE / "page.css").read_text(encoding="utf-8")
THEME = Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])

_VALUES = (_HERE / "values.js").read_text(encoding="utf-8")
_PROCESS = "native: at the generator's size; full: at the picture's own; tile: native, then finer by tiles"
_DOWNLOADS = {".npy": "npy", ".exr": "exr", ".png": "png, 16 bits"}
_PIXEL_ART = 128  # below this single pixels are shown
_ONE_JOB: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}


def _path_of(self: gr.Image, payload: ImageData | None) -> str | None:
    return payload.path if payload else None


async def _move_local(self: gr.Image, url_or_file_path: str | Path | None) -> str | None:
    if url_or_file_path and "://" in str(url_or_file_path):
        raise gr.Error("only files can be given.", print_exception=False)
    return await gr.Image.async_move_resource_to_block_cache(self, url_or_file_path)


# gr.Image (its browser side too: is_template) whose upload reaches us as a file that nobody has opened, and which fetches
# nothing from elsewhere. Made past Gradio's own metaclass, which writes a .pyi file beside the module of every subclass.
_PictureDrop: Any = ABCMeta.__new__(
    type(gr.Image),
    "PictureDrop",
    (gr.Image,),
    {
        "__module__": __name__,
        "is_template": True,
        "preprocess": _path_of,
        "async_move_resource_to_block_cache": _move_local,
    },
)


def make_page(groups: Sequence[Group], models: Models, results: Results, *, folder: Path, max_bytes: int) -> gr.Blocks:
    """The page. folder: where uploads lie, and nothing else is taken from; max_bytes: of one upload."""
    work = _Work({group.label: group for group in groups}, models, results, folder, max_bytes)
    first = groups[0]
    with gr.Blocks(title="ilora", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("# ilora\nMaps that a frozen image generator draws with an adapter.")
        shown = gr.State("")
        with gr.Row():
            with gr.Column(scale=1, min_width=340):
                generator = gr.Dropdown([group.label for group in groups], value=first.label, label="Generator")
                adapters = gr.CheckboxGroup(list(first.adapters), value=first.first_of_each_map(), label="Adapters")
                with gr.Tab("From a picture"):
                    picture = _PictureDrop(sources=["upload", "clipboard"], label="Picture", height=230, buttons=[])
                    gr.Examples(
                        [[str(path)] for path in EXAMPLES], [picture], label="Example rooms", cache_examples=False
                    )
                    process = gr.Radio(list(PROCESSES), value="native", label="Process", info=_PROCESS)
                    draw = gr.Button("Draw maps", variant="primary")
                with gr.Tab("From a seed"):
                    gr.Markdown("The generator's own picture: for a GAN, and any other generator that samples.")
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                    with gr.Row():
                        another = gr.Button("Another seed")
                        sample = gr.Button("Draw a sample", variant="primary")
            with gr.Column(scale=2, min_width=480):
                message = gr.HTML(
                    _told("Choose a picture or a seed, then draw."), min_height=60, elem_classes="ilora-part"
                )
                gr.render(inputs=[shown], triggers=[shown.change])(work.show)
        generator.change(work.offered, [generator], [adapters], api_visibility="private")
        picture.upload(work.checked, [picture], [picture, message], show_progress="hidden", api_visibility="private")
        another.click(lambda: secrets.randbelow(10**6), None, [seed], api_visibility="private")
        chosen = [generator, adapters]
        for button in (draw, sample):  # the steps are told where the last message was
            button.click(None, None, [message], js="() => ''")
        draw.click(work.from_picture, [picture, *chosen, process], [shown, message], **_ONE_JOB)
        sample.click(work.from_seed, [seed, *chosen], [shown, message], **_ONE_JOB)
    return page.queue(max_size=8, default_concurrency_limit=1, api_open=False)


class _Work:
    """What the page's buttons do."""

    def __init__(self, groups: dict[str, Group], models: Models, results: Results, folder: Path, max_bytes: int):
        self._groups, self._models, self._results = groups, models, results
        self._folder, self._max_bytes = folder, max_bytes

    def offered(self, generator: str) -> Any:
        """The adapters of a generator."""
        group = self._groups[generator]
        return gr.CheckboxGroup(list(group.adapters), value=group.first_of_each_map())

    def checked(self, path: str | None) -> tuple[Any, str]:
        """An upload stays, or goes with a message."""
        try:
            self._picture(path)
        except Exception as error:
            return None, _failed(error)
        return gr.skip(), _told("")

    def from_picture(
        self, path: str | None, generator: str, labels: list[str], process: str, progress: Any = gr.Progress()
    ) -> tuple[Any, str]:
        """Maps of an upload or an example."""

        def work(say: Callable[[str], None]) -> Result:
            if path is None:
                raise DataError("choose a picture first: drop one, or take an example.")
            drawn = self._models.maps_of(self._picture(path), self._chosen(generator, labels), process=process, say=say)
            return self._results.add(drawn, key=Path(path).stem, note=_note(drawn, process))

        return _answered(work, progress, steps=2 + len(labels))

    def from_seed(
        self, seed: float | None, generator: str, labels: list[str], progress: Any = gr.Progress()
    ) -> tuple[Any, str]:
        """A sample and its maps."""

        def work(say: Callable[[str], None]) -> Result:
            if seed is None or not 0 <= seed < 2**31:
                raise DataError("a seed is a whole number from 0 to 2147483647.")
            drawn = self._models.maps_of_sample(int(seed), self._chosen(generator, labels), say=say)
            return self._results.add(drawn, key=f"sample-{int(seed)}", note=_note(drawn, f"seed {int(seed)}"))

        return _answered(work, progress, steps=2 + len(labels))

    def show(self, token: str) -> None:
        """The results' half of the page."""
        if (result := self._results.get(token)) is None:
            return
        names = list(result.intrinsics)
        with gr.Tabs(selected=names[0]):
            for name in names:
                with gr.Tab(name.capitalize(), id=name):
                    _map_tab(result, name)
            if result.has_scene:
                with gr.Tab("3-D", id="3-d"):
                    source = f"results/{result.token}/scene.html"
                    frame = (
                        f'<iframe class="ilora-scene" sandbox="allow-scripts" title="3-D view" src="{source}"></iframe>'
                    )
                    gr.HTML(frame, elem_classes="ilora-part")

    def _picture(self, path: str | None) -> Any:
        if path is None:
            raise DataError("there is no picture.")
        if not Path(path).resolve().is_relative_to(self._folder):
            raise DataError("only an uploaded picture can be drawn.")
        return accepted_picture(path, max_bytes=self._max_bytes)

    def _chosen(self, generator: str, labels: Sequence[str]) -> list[Any]:
        return [self._groups[generator].adapters[label] for label in labels]


def _answered(work: Callable[[Callable[[str], None]], Result], progress: Any, *, steps: int) -> tuple[Any, str]:
    """The result's token and what to say of it. steps: that are expected; drawing by tiles takes more."""
    done = 0

    def say(what: str) -> None:
        nonlocal done
        progress(min(done / steps, 0.95), desc=what)
        done += 1

    try:
        result = work(say)
    except Exception as error:
        return gr.skip(), _failed(error)
    return result.token, _told(result.note)


def _map_tab(result: Result, name: str) -> None:
    with gr.Row():
        with gr.Column(min_width=280):
            pair = (str(result.picture), str(result.preview(name)))
            gr.ImageSlider(pair, label=f"picture | {name}", interactive=False, buttons=["fullscreen"], format="png")
            gr.HTML(_downloads(result, name), elem_classes="ilora-part")
        with gr.Column(min_width=280):
            gr.HTML(_values(result, name), js_on_load=_VALUES, elem_classes="ilora-part")


def _values(result: Result, name: str) -> str:
    height, width = result.size
    told = reading(result.intrinsics[name])
    data = {
        "width": width,
        "height": height,
        "channels": len(told["names"]),
        "names": json.dumps(told["names"]),
        "unit": told["unit"],
        "source": f"results/{result.token}/{quote(name)}/tile",
    }
    attributes = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in data.items())
    small = " small" if max(height, width) <= _PIXEL_ART else ""
    return (
        f'<div class="ilora-values{small}" {attributes}><div class="map" tabindex="0" role="application" '
        f'aria-label="values of {escape(name)}: move the pointer, or the arrow keys">'
        f'<img src="results/{result.token}/{quote(name)}/preview" alt="{escape(name)}" draggable="false">'
        f'<div class="cross" hidden></div></div><div class="told"><canvas width="77" height="77"></canvas>'
        f"<output>point at a pixel</output></div></div>"
    )


def _downloads(result: Result, name: str) -> str:
    stem = f"results/{result.token}/{quote(name)}"
    links = (
        f'<a href="{stem}{suffix}" download="{result.key}-{escape(name)}{suffix}">{text}</a>'
        for suffix, text in _DOWNLOADS.items()
    )
    return f'<div class="ilora-downloads"><span>Download</span>{"".join(links)}</div>'


def _note(drawn: Drawn, how: str) -> str:
    height, width = drawn.picture.shape[-2:]
    inverted = f"; maps of an inversion, PSNR {drawn.psnr_db:.1f} dB" if drawn.psnr_db is not None else ""
    return f"{', '.join(drawn.maps)} at {width}×{height}, {how}{inverted}"


def _told(text: str) -> str:
    return f'<div class="ilora-message" role="status">{escape(text)}</div>' if text else ""


def _failed(error: Exception) -> str:
    if os.environ.get("ILORA_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    message = explain(error, "app")[0]
    if isinstance(error, CannotEncode):
        message += " Or draw a sample: “From a seed”."
    return f'<div class="ilora-message failed" role="alert">{escape(message)}</div>'
