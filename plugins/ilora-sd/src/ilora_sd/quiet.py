"""Loading without the libraries' own progress bars: the command line draws one, and two do not share a terminal.

And without diffusers' warning about entries of a config.json that it wrote itself (AutoencoderTiny's block_out_channels).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_config_warnings", "no_progress_bars"]


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


@contextmanager
def no_config_warnings() -> Iterator[None]:
    """Nothing but errors about configurations inside the `with` block."""
    log = logging.getLogger("diffusers.configuration_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
