"""The paper's tables and figures as studies of a world.

Cells of different studies that are the same cell are computed once: what Table 4 has fitted, Figures 8 and 9 only read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ilora_core.errors import UnknownName
from ilora_core.report.parts import Table
from ilora_core.reproduce import published
from ilora_core.reproduce.counts import counts_table
from ilora_core.reproduce.study import Claim, Decided, Part, Study
from ilora_core.reproduce.world import Family, World
from ilora_core.sweep import Axis, Choice, Sweep

__all__ = ["STUDIES", "make_study"]

RANK = 8
LORA, RANDOM, FULL, PROBE, MEAN = "LoRA", "random init", "full fine-tuning", "linear probe", "mean map"
_NORMALS = ("mean_deg", "median_deg", "below_11_25")
_PROTOCOLS = {"normals": "normals-pooled", "depth": "paper", "albedo": "raw", "shading": "raw"}
_FIGURES = {"normals": ("mean_deg", "median_deg", "l1x100"), "depth": (), "albedo": (), "shading": ()}


def make_study(name: str, world: World) -> Study:
    """The study of that name. Raises UnknownName that lists them."""
    if name not in STUDIES:
        raise UnknownName(f"there is no target {name!r}; there are {', '.join(STUDIES)}.")
    return STUDIES[name](world)


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
        for name in _PROTOCOLS
        for other in _controls(family)
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
            ("one step", _lora(world, one, name), {}),
            ("many steps (AUG)", _lora(world, many, name), {}),
            ("AUG, drawn in one step", _lora(world, many, name), {"steps": 1, "cfg": 1.0}),
            ("mean map", {**_base(world, one, name), "method": "mean-map"}, {}),
        ]
        if name in world.judges:
            rows.insert(
                3, ("labeler", {**_base(world, one, name), "method": "labeler", "labeler": world.judges[name]}, {})
            )
        sweeps = [({"method": label}, _sweep(s, one.test, _PROTOCOLS[name], draw=draw)) for label, s, draw in rows]
        parts.append(Part(name, sweeps, _FIGURES[name]))
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
        axes = (_labels(world, family), Axis("method", tuple(_ways(family))), _seeds(world))
        parts.append(
            Part(family.name, [({}, Sweep(_base(world, family), axes, family.test, "normals-pooled"))], _NORMALS)
        )
        for n in world.labels:
            for other in (*_controls(family)[:-1], PROBE, FULL):
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


def fig5(world: World) -> Study:
    family, versions = world.quality.family, world.quality.versions
    ways = Axis("method", (_way(LORA, family), Choice(PROBE, {"method": "probe"})))
    axes = (Axis("version", tuple(Choice(name, dict(s)) for name, s in versions.items())), ways)
    base = {**_base(world, family), "train.seed": world.seeds[0]}
    sweep = Sweep(base, axes, family.test, "normals-pooled")
    names = list(versions)
    pairs = list(itertools.pairwise(names))
    claims = [
        Claim(f"{way}: {b} beats {a}", "normals", {"version": b, "method": way}, {"version": a, "method": way})
        for way in (LORA, PROBE)
        for a, b in [*pairs, (names[0], names[-1])]
    ]
    return Study(
        "fig5",
        "The better the generator, the better its intrinsics",
        "Among versions of a generator, the accuracy of intrinsics grows with the quality of its pictures; a network of random "
        "weights is worst.",
        "Normals from several states of one generator's training, all else equal; the first seed.",
        [Part("normals", [({}, sweep)], _NORMALS)],
        claims,
        (published.FID,),
        tables=world.quality.tables,
    )


def fig8(world: World) -> Study:
    family = world.families[0]
    # The usual rank is not spelt out: its cells are Table 4's.
    settings = ({"adapter": "lora"} if rank == RANK else {"adapter.rank": rank} for rank in world.ranks)
    ranks = Axis("rank", tuple(Choice(str(rank), own) for rank, own in zip(world.ranks, settings, strict=True)))
    sweep = Sweep({**_lora(world, family)}, (ranks, _seeds(world)), family.test, "normals-pooled")
    ordered = [str(rank) for rank in world.ranks]
    pairs = [(b, a) for a, b in itertools.pairwise(ordered)]
    return Study(
        "fig8",
        "Rank of the adapter",
        "Rank 8 is a good compromise; a rank of 2, 0.04 % of the weights, draws intrinsics already.",
        f"Normals from {world.usual} labels, the same steps and rate for every rank.",
        [Part("normals", [({}, sweep)], _NORMALS)],
        [
            Claim(f"rank {b} beats rank {a}", "normals", {"rank": b}, {"rank": a})
            for b, a in [*pairs, (str(RANK), ordered[0])]
        ],
        (published.SHARES,),
        published.ERRORS[:1],
    )


def fig9(world: World) -> Study:
    family = world.families[0]
    axes = (_labels(world, family), _seeds(world))
    base = {**_base(world, family), **_way(LORA, family).settings}
    names = [f"{n:,}" for n in world.labels]
    return Study(
        "fig9",
        "How few labels are enough",
        "250 labels are enough; more than 4,000 no longer help.",
        "Normals by LoRA alone, with pictures; the cells are Table 4's.",
        [Part("normals", [({}, Sweep(base, axes, family.test, "normals-pooled"))], _NORMALS)],
        [Claim(f"{b} labels beat {a}", "normals", {"labels": b}, {"labels": a}) for a, b in itertools.pairwise(names)],
        (published.TABLE4,),
        world.notes,
    )


def fig10(world: World) -> Study:
    family = world.families[0]
    layers = [Choice("all", {"adapter": "lora"}), *(Choice(k, {"adapter.targets": v}) for k, v in world.layers.items())]
    sweep = Sweep(_lora(world, family), (Axis("layers", tuple(layers)), _seeds(world)), family.test, "normals-pooled")
    pairs = [("all", name) for name in world.layers] + [("self", "cross"), ("up", "down"), ("up", "mid")]
    known = {"all", *world.layers}
    return Study(
        "fig10",
        "Which layers carry the intrinsics",
        "Adapters on all attention layers; self-attention and the decoding half matter most.",
        f"Normals from {world.usual} labels, rank 8, the same steps and rate for every choice of layers.",
        [Part("normals", [({}, sweep)], _NORMALS)],
        [
            Claim(f"{a} beats {b}", "normals", {"layers": a}, {"layers": b})
            for a, b in pairs
            if a in known and b in known
        ],
        footnotes=("Fewer layers are fewer parameters: the columns of the table say how many.",),
    )


def fig11(world: World) -> Study:
    family = world.families[0]
    ways = Axis("method", tuple(_way(kind, family) for kind in (LORA, RANDOM)))
    steps = Axis(
        "train.steps", tuple(Choice(f"{n:,}", {"train.steps": n, "train.keep_every": n // 4}) for n in world.lengths)
    )
    base = {k: v for k, v in _base(world, family).items() if k not in ("train.steps", "train.keep_every")}
    sweep = Sweep(base | _count(world, family), (steps, ways, _seeds(world)), family.test, "normals-pooled")
    return Study(
        "fig11",
        "The same adapter on a network of random weights",
        "An adapter on a network that was never trained cannot draw intrinsics: what it draws was in the generator.",
        "Normals by the number of training steps, with pictures. An adapter on random weights learns something by itself.",
        [Part("normals", [({}, sweep)], _NORMALS)],
        [
            Claim(
                f"{n:,} steps: LoRA beats random init",
                "normals",
                {"train.steps": f"{n:,}", "method": LORA},
                {"train.steps": f"{n:,}", "method": RANDOM},
            )
            for n in world.lengths
        ],
    )


def fig13(world: World) -> Study:
    one, many, sdedit = world.families[0], world.many, world.sdedit
    rows: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (LORA, _lora(world, one), {}),
        *((name, {**_base(world, one), **settings}, {}) for name, settings in world.others.items()),
        ("LoRA on AUG", _lora(world, many), {"steps": 1, "cfg": 1.0}),
        *(
            (name, {**_base(world, many), **settings}, {"steps": 1, "cfg": 1.0})
            for name, settings in world.others_many.items()
        ),
    ]
    said = {"intrinsic.prompt": world.prompts["normals"]} if "normals" in world.prompts else {}
    rows.append(("InstructPix2Pix prompting", {**_base(world, many), "method": "prompt", **said}, {}))
    rows += [
        (f"SDEdit prompting, strength {s:g}", {**_base(world, sdedit), "method": "prompt", **said}, {"strength": s})
        for s in world.strengths
    ]
    rows.append((MEAN, {**_base(world, one), "method": "mean-map"}, {}))
    sweeps = [
        ({"method": label}, _sweep(settings, one.test, "normals-pooled", draw=draw)) for label, settings, draw in rows
    ]
    others = [label for label, _, _ in rows if label not in (LORA, MEAN)]
    return Study(
        "fig13",
        "Alternatives to LoRA",
        "Textual inversion, visual instruction inversion, instruction prompting and SDEdit do not draw intrinsics; LoRA does.",
        f"Normals from the same {world.usual} labels; prompting and SDEdit are not trained. Other kinds of adapters have "
        "about as many parameters as rank 8.",
        [Part("normals", sweeps, _NORMALS)],
        [Claim(f"LoRA beats {label}", "normals", {"method": LORA}, {"method": label}) for label in [*others, MEAN]],
    )


def fig14(world: World) -> Study:
    many = world.many
    sweeps = [
        (
            {"steps": str(n), "guidance": f"{g:g}"},
            _sweep(_lora(world, many), many.test, "normals-pooled", draw={"steps": n, "cfg": g}),
        )
        for n in world.steps
        for g in world.guidance
    ]
    few, most = (str(pick(world.steps)) for pick in (min, max))
    weak, strong = (f"{pick(world.guidance):g}" for pick in (min, max))
    return Study(
        "fig14",
        "Steps and guidance of the many-step model",
        "25 steps at a guidance of 3 are used; stronger guidance draws sharper maps.",
        "One fit, drawn with every number of steps and every guidance.",
        [Part("normals", sweeps, _NORMALS)],
        [
            Claim(
                "many steps beat few, at the weakest guidance",
                "normals",
                {"steps": most, "guidance": weak},
                {"steps": few, "guidance": weak},
            ),
            Claim(
                "strong guidance beats weak, at the most steps",
                "normals",
                {"steps": most, "guidance": strong},
                {"steps": most, "guidance": weak},
            ),
        ],
    )


def fig15(world: World) -> Study:
    many, sdedit = world.many, world.sdedit
    sweeps = [
        ({"method": "AUG, sees the picture", "strength": ""}, _sweep(_lora(world, many), many.test, "normals-pooled"))
    ]
    sweeps += [
        (
            {"method": "SDEdit", "strength": f"{s:g}"},
            _sweep(_lora(world, sdedit), sdedit.test, "normals-pooled", draw={"strength": s, "cfg": 1.0}),
        )
        for s in world.strengths
    ]
    return Study(
        "fig15",
        "Seeing the picture against starting from it (SDEdit)",
        "Without the picture's latent beside the noise, maps do not line up with the picture.",
        "The same network and recipe; SDEdit starts from the noised picture and sees it no other way.",
        [Part("normals", sweeps, _NORMALS)],
        [
            Claim(
                f"AUG beats SDEdit of strength {s:g}",
                "normals",
                {"method": "AUG, sees the picture"},
                {"method": "SDEdit", "strength": f"{s:g}"},
            )
            for s in world.strengths
        ],
    )


STUDIES: Mapping[str, Callable[[World], Study]] = {
    study.__name__: study
    for study in (table1, table2, table3, table4, table5, fig5, fig8, fig9, fig10, fig11, fig13, fig14, fig15)
}


def _intrinsics(world: World) -> list[Part]:
    """A part per intrinsic: every family's adapter, the same on random weights, the mean map; the first seed."""
    parts = []
    for name, protocol in _PROTOCOLS.items():
        sweeps = []
        for family in world.families:
            ways = [_way(kind, family, name) for kind in (LORA, *_controls(family))]
            ways += [Choice("the picture itself", {"method": "picture"})] if name in ("albedo", "shading") else []
            base = {**_base(world, family, name), "train.seed": world.seeds[0]}
            sweeps.append(
                ({"generator": family.name}, Sweep(base, (Axis("method", tuple(ways)),), family.judged(name), protocol))
            )
        parts.append(Part(name, sweeps, _FIGURES[name]))
    return parts


def _matrix(world: World, decided: Sequence[Decided]) -> Table:
    """Generators by intrinsics: both claims hold, one of them, or none."""
    rows = []
    for family in world.families:
        marks = []
        for name in _PROTOCOLS:
            own = [d.verdict for d in decided if d.claim.part == name and d.claim.better["generator"] == family.name]
            marks.append("✓" if own.count("holds") == len(own) else "~" if "holds" in own else "✗")
        rows.append([family.name, *marks])
    note = f"✓: beats {RANDOM} and {MEAN}; ~: one of them; ✗: neither. Decided by paired intervals."
    return Table("Held here", ("", *_PROTOCOLS), rows, note=note)


def _base(world: World, family: Family, intrinsic: str = "normals") -> dict[str, Any]:
    return {**family.of(intrinsic), "validation": world.validation, **_count(world, family)}


def _count(world: World, family: Family, labels: int = 0) -> dict[str, Any]:
    return {family.count: (labels or world.usual) + world.validation}


def _lora(world: World, family: Family, intrinsic: str = "normals") -> dict[str, Any]:
    return {**_base(world, family, intrinsic), "adapter": "lora", **family.rate("lora", intrinsic)}


def _labels(world: World, family: Family) -> Axis:
    return Axis("labels", tuple(Choice(f"{n:,}", _count(world, family, n)) for n in world.labels))


def _seeds(world: World) -> Axis:
    return Axis.of("train.seed", world.seeds)


def _ways(family: Family) -> list[Choice]:
    first, last = _controls(family)[:-1], _controls(family)[-1]
    return [_way(kind, family) for kind in (LORA, *first, FULL, PROBE, last)]


def _controls(family: Family) -> tuple[str, ...]:
    """What every adapter is held against, the mean map last."""
    return (RANDOM, MEAN) if family.has_random else (MEAN,)


def _way(kind: str, family: Family, intrinsic: str = "") -> Choice:
    settings: dict[str, Any] = {
        LORA: {"adapter": "lora", **family.rate("lora", intrinsic)},
        RANDOM: {"method": "random-init", **family.rate("lora", intrinsic)},
        FULL: {"adapter": "full", **family.rate("full", intrinsic)},
        PROBE: {"method": "probe"},
        MEAN: {"method": "mean-map"},
    }[kind]
    return Choice(kind, settings)


def _sweep(base: Mapping[str, Any], test: str, protocol: str, *, draw: Mapping[str, Any] | None = None) -> Sweep:
    return Sweep(base, (), test, protocol, dict(draw or {}))
