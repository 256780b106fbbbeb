"""Loading without the libraries' own progress bars: the command line draws one, and two do not share a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_progress_bars"]


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch transformers' and diffusers' bars off inside the `with` block, and back to what they were."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    switched = [module for module in (diffusers_logging, transformers_logging) if module.is_progress_bar_enabled()]
    for module in switched:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in switched:
            module.enable_progress_bar()
