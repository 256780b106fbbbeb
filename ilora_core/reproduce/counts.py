"""Table 5's columns of numbers, counted on networks without weights."""

from __future__ import annotations

from collections.abc import Sequence

from ilora_core.plan import count
from ilora_core.plugins import PluginHost
from ilora_core.report.parts import Table

__all__ = ["counts_table"]


def counts_table(host: PluginHost, generators: Sequence[tuple[str, str]]) -> Table:
    """(name for people, card) -> parameters of the generator and its parts, and of a rank-8 adapter."""
    rows = []
    for name, card in generators:
        parts, adapter = count(host, card, settings={"adapter": {"rank": 8}})
        whole = sum(parts.values()) - sum(v for k, v in parts.items() if k.startswith("text_encoder"))
        trained = int(adapter["parameters"])
        rows.append(
            (
                name,
                card,
                f"{whole:,}",
                f"{trained:,}",
                f"{100 * trained / whole:.3f} %",
                f"{int(adapter['sites'])}",
                ", ".join(f"{k} {v:,}" for k, v in parts.items()),
            )
        )
    header = ("", "card", "parameters", "adapter (rank 8)", "share", "layers", "parts")
    note = "Without text encoders, as the paper counts. `ilora plan --generator CARD` counts the same and more."
    return Table("Counted here", header, rows, note=note, left=2)
