"""The paper's tables as studies of a world."""

from __future__ import annotations

from collections.abc import Sequence

from ilora_core.report.parts import Table
from ilora_core.reproduce import published
from ilora_core.reproduce.counts import counts_table
from ilora_core.reproduce.grids import (
    FIGURES,
    FULL,
    LORA,
    MEAN,
    NORMALS,
    PROBE,
    PROTOCOLS,
    RANDOM,
    base_of,
    controls_of,
    label_axis,
    lora_of,
    seed_axis,
    single,
    way_of,
    ways_of,
)
from ilora_core.reproduce.study import Claim, Decided, Part, Study
from ilora_core.reproduce.world import World
from ilora_core.sweep import Axis, Choice, Sweep

__all__ = ["table1", "table2", "table3", "table4", "table5"]


def table1(world: World) -> Study:
    parts = _intrinsics(world)
    claims = [
        Claim(
            f"{family.name} knows {name}: its adapter beats {other}",
            name,
            {"generator": family.name, "method": LORA},
            {"generator": family.name, "method": other},
        )
        for family in world.families
        for name in PROTOCOLS
        for other in controls_of(family)
    ]
    return Study(
        "table1",
        "Which generators hold which intrinsics",
        "Generators of every kind hold all four intrinsics, without a new head or decoder; the VQGAN's geometry is only fair.",
        "An intrinsic counts as held where the adapter beats both the same adapter on random weights and the mean map, each with "
        "its whole paired interval. The fits are Table 2's.",
        parts,
        claims,
        (published.TABLE2,),
        summary=lambda decided: _matrix(world, decided),
    )


def table2(world: World) -> Study:
    return Study(
        "table2",
        "How well each generator draws each intrinsic",
        "Errors of normals, depth, albedo and shading for each generator, with adapters of 0.17 to 0.57 % of its weights.",
        f"{world.usual} labelled pictures for each, beside the same adapter on random weights and the mean map.",
        _intrinsics(world),
        (),
        (published.TABLE2,),
        published.ERRORS[:3],
    )


def table3(world: World) -> Study:
    one, many = world.families[0], world.many
    parts = []
    for name in ("normals", "depth"):
        rows = [
            ("one step", lora_of(world, one, name), {}),
            ("many steps (AUG)", lora_of(world, many, name), {}),
            ("AUG, drawn in one step", lora_of(world, many, name), {"steps": 1, "cfg": 1.0}),
            ("mean map", {**base_of(world, one, name), "method": "mean-map"}, {}),
        ]
        if name in world.judges:
            rows.insert(
                3, ("labeler", {**base_of(world, one, name), "method": "labeler", "labeler": world.judges[name]}, {})
            )
        sweeps = [({"method": label}, single(s, one.test, PROTOCOLS[name], draw=draw)) for label, s, draw in rows]
        parts.append(Part(name, sweeps, FIGURES[name]))
    claims = [
        Claim("one step beats many for normals", "normals", {"method": "one step"}, {"method": "many steps (AUG)"}),
        Claim("the supervised labeler beats one step", "normals", {"method": "labeler"}, {"method": "one step"}),
        Claim("one step beats many for depth", "depth", {"method": "one step"}, {"method": "many steps (AUG)"}),
    ]
    return Study(
        "table3",
        "One step, many steps and a supervised predictor",
        "The one-step model comes near the supervised predictor that labelled its training pictures; the many-step model draws "
        "sharper maps with larger errors.",
        f"The same {world.usual} labelled pictures and test pictures for all; the labeler was trained on its own, many more.",
        parts,
        [c for c in claims if c.better["method"] != "labeler" or "normals" in world.judges],
        (published.TABLE3,),
    )


def table4(world: World) -> Study:
    parts, claims = [], []
    for family in world.families:
        axes = (label_axis(world, family), Axis("method", tuple(ways_of(family))), seed_axis(world))
        parts.append(
            Part(family.name, [({}, Sweep(base_of(world, family), axes, family.test, "normals-pooled"))], NORMALS)
        )
        for n in world.labels:
            for other in (*controls_of(family)[:-1], PROBE, FULL):
                lora, rival = ({"labels": f"{n:,}", "method": method} for method in (LORA, other))
                claims.append(Claim(f"{family.name}, {n:,} labels: LoRA beats {other}", family.name, lora, rival))
    return Study(
        "table4",
        "LoRA against linear probing and full fine-tuning, by the number of labels",
        "LoRA beats both at every number of labels, and 250 labels are enough to begin with.",
        "Normals. Every method sees the same labels; LoRA, random init and full fine-tuning the same steps and batches, each "
        "kind of training at a rate chosen for it; the probe is solved in closed form.",
        parts,
        claims,
        (published.TABLE4,),
        world.notes,
    )


def table5(world: World) -> Study:
    return Study(
        "table5",
        "Parameters, rates and steps",
        "An adapter of rank 8 is 0.17 to 0.57 % of a generator's weights.",
        "Counted on networks without weights, by the generators' own code; nothing is trained.",
        published=(published.TABLE5,),
        footnotes=published.ERRORS,
        tables=lambda _folder, host: [counts_table(host, world.counts)],
    )


def _intrinsics(world: World) -> list[Part]:
    """A part per intrinsic: every family's adapter, the same on random weights, the mean map; the first seed."""
    parts = []
    for name, protocol in PROTOCOLS.items():
        sweeps = []
        for family in world.families:
            ways = [way_of(kind, family, name) for kind in (LORA, *controls_of(family))]
            ways += [Choice("the picture itself", {"method": "picture"})] if name in ("albedo", "shading") else []
            base = {**base_of(world, family, name), "train.seed": world.seeds[0]}
            sweeps.append(
                ({"generator": family.name}, Sweep(base, (Axis("method", tuple(ways)),), family.judged(name), protocol))
            )
        parts.append(Part(name, sweeps, FIGURES[name]))
    return parts


def _matrix(world: World, decided: Sequence[Decided]) -> Table:
    """Generators by intrinsics: both claims hold, one of them, or none."""
    rows = []
    for family in world.families:
        marks = []
        for name in PROTOCOLS:
            own = [d.verdict for d in decided if d.claim.part == name and d.claim.better["generator"] == family.name]
            marks.append("✓" if own.count("holds") == len(own) else "~" if "holds" in own else "✗")
        rows.append([family.name, *marks])
    note = f"✓: beats {RANDOM} and {MEAN}; ~: one of them; ✗: neither. Decided by paired intervals."
    return Table("Held here", ("", *PROTOCOLS), rows, note=note)
