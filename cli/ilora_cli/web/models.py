"""The one generator in memory, and maps from it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ilora_cli.explain import ran_out_of_memory
from ilora_core.artefact import Artefact
from ilora_core.config import RuntimeConfig
from ilora_core.errors import ConfigError, IloraError
from ilora_core.intrinsics import Intrinsic
from ilora_core.predict import Predictor
from ilora_core.protocols import Codes

__all__ = ["Drawn", "Models", "Say", "Stopped"]

Say = Callable[[str], None]


class Stopped(IloraError):
    """The server is ending."""


@dataclass(frozen=True)
class Drawn:
    """A picture (3,H,W), its maps (C,H,W) by name, what they are, and how near an inversion came."""

    picture: Tensor
    maps: Mapping[str, Tensor]
    intrinsics: Mapping[str, Intrinsic]
    psnr_db: float | None = None


class Models:
    """Draws maps, one job at a time. The last generator stays loaded until other adapters or another generator is asked for.

    generator, settings  used instead of what the artefacts name
    """

    def __init__(self, runtime: RuntimeConfig, *, generator: str = "", settings: Mapping[str, Any] | None = None):
        self._runtime, self._generator, self._settings = runtime, generator, dict(settings or {})
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._loaded: tuple[Any, Predictor] | None = None

    def stop(self) -> None:
        """A running job ends at its next step."""
        self._stopping.set()

    def maps_of(self, picture: Tensor, artefacts: Sequence[Artefact], *, process: str, say: Say) -> Drawn:
        """Maps of a picture (3,H,W), at its size. say: told of every step before it begins."""

        def draw(drawer: Predictor) -> Drawn:
            maps = drawer(picture[None], process=process)
            psnr_db = drawer.psnr_db[0] if drawer.psnr_db else None
            return Drawn(picture, _first(maps), dict(drawer.intrinsics), psnr_db)

        return self._run(artefacts, draw, say)

    def maps_of_sample(self, seed: int, artefacts: Sequence[Artefact], *, say: Say) -> Drawn:
        """The generator's own picture of this seed, and its maps."""

        @torch.inference_mode()
        def draw(drawer: Predictor) -> Drawn:
            codes = drawer.generator.sample(1, seed=seed)
            maps = drawer.from_codes(codes)
            return Drawn(drawer.generator.picture(codes)[0].float().cpu(), _first(maps), dict(drawer.intrinsics))

        return self._run(artefacts, draw, say)

    def _run(self, artefacts: Sequence[Artefact], draw: Callable[[Predictor], Drawn], say: Say) -> Drawn:
        if not artefacts:
            raise ConfigError("choose at least one adapter.")

        def step(what: str) -> None:
            if self._stopping.is_set():
                raise Stopped("the server is ending.")
            say(what)

        with self._lock:
            try:
                drawer = self._drawer(artefacts, step)
                plain, watched = drawer.generator, _Watched(drawer.generator, step)
                drawer.generator = watched  # type: ignore[assignment]  # it passes on what it does not watch
                try:
                    return draw(drawer)
                finally:
                    drawer.generator = plain
            except Exception as error:
                if ran_out_of_memory(error):
                    self._release()
                raise

    def _drawer(self, artefacts: Sequence[Artefact], say: Say) -> Predictor:
        key = tuple((artefact.folder, artefact.intrinsic.name) for artefact in artefacts)
        if self._loaded is None or self._loaded[0] != key:
            self._release()
            say("load generator and adapters")
            loaded = Predictor(artefacts, runtime=self._runtime, generator=self._generator, settings=self._settings)
            self._loaded = (key, loaded)
        return self._loaded[1]

    def _release(self) -> None:
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Watched:
    """A generator that says what it is about to do."""

    def __init__(self, generator: Any, say: Say):
        self._generator, self._say = generator, say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def sample(self, n: int, *, seed: int) -> Codes:
        self._say("sample")
        return self._generator.sample(n, seed=seed)

    def encode(self, pictures: Tensor) -> Codes:
        self._say("encode")
        return self._generator.encode(pictures)

    def render(self, codes: Codes, intrinsic: Intrinsic) -> Tensor:
        self._say(f"draw {intrinsic.name}")
        return self._generator.render(codes, intrinsic)

    def render_with_spread(self, codes: Codes, intrinsic: Intrinsic) -> tuple[Tensor, Tensor]:
        self._say(f"draw {intrinsic.name} and its spread")
        return self._generator.render_with_spread(codes, intrinsic)

    def render_many(self, codes: Codes, intrinsics: Sequence[Intrinsic]) -> Sequence[Tensor]:
        self._say(f"draw {', '.join(intrinsic.name for intrinsic in intrinsics)}")
        return self._generator.render_many(codes, intrinsics)


def _first(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[0] for name, value in maps.items()}
