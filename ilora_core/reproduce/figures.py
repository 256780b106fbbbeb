"""The paper's figures as studies of a world."""

from __future__ import annotations

import itertools
from typing import Any

from ilora_core.reproduce import published
from ilora_core.reproduce.grids import (
    LORA,
    MEAN,
    NORMALS,
    PROBE,
    RANDOM,
    RANK,
    base_of,
    count_of,
    label_axis,
    lora_of,
    seed_axis,
    single,
    way_of,
)
from ilora_core.reproduce.study import Claim, Part, Study
from ilora_core.reproduce.world import World
from ilora_core.sweep import Axis, Choice, Sweep

__all__ = ["fig5", "fig8", "fig9", "fig10", "fig11", "fig13", "fig14", "fig15"]


def fig5(world: World) -> Study:
    family, versions = world.quality.family, world.quality.versions
    ways = Axis("method", (way_of(LORA, family), Choice(PROBE, {"method": "probe"})))
    axes = (Axis("version", tuple(Choice(name, dict(s)) for name, s in versions.items())), ways)
    base = {**base_of(world, family), "train.seed": world.seeds[0]}
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
        [Part("normals", [({}, sweep)], NORMALS)],
        claims,
        (published.FID,),
        tables=world.quality.tables,
    )


def fig8(world: World) -> Study:
    family = world.families[0]
    # The usual rank is not spelt out: its cells are Table 4's.
    settings = ({"adapter": "lora"} if rank == RANK else {"adapter.rank": rank} for rank in world.ranks)
    ranks = Axis("rank", tuple(Choice(str(rank), own) for rank, own in zip(world.ranks, settings, strict=True)))
    sweep = Sweep({**lora_of(world, family)}, (ranks, seed_axis(world)), family.test, "normals-pooled")
    ordered = [str(rank) for rank in world.ranks]
    pairs = [(b, a) for a, b in itertools.pairwise(ordered)]
    return Study(
        "fig8",
        "Rank of the adapter",
        "Rank 8 is a good compromise; a rank of 2, 0.04 % of the weights, draws intrinsics already.",
        f"Normals from {world.usual} labels, the same steps and rate for every rank.",
        [Part("normals", [({}, sweep)], NORMALS)],
        [
            Claim(f"rank {b} beats rank {a}", "normals", {"rank": b}, {"rank": a})
            for b, a in [*pairs, (str(RANK), ordered[0])]
        ],
        (published.SHARES,),
    )


def fig9(world: World) -> Study:
    family = world.families[0]
    axes = (label_axis(world, family), seed_axis(world))
    base = {**base_of(world, family), **way_of(LORA, family).settings}
    names = [f"{n:,}" for n in world.labels]
    return Study(
        "fig9",
        "How few labels are enough",
        "250 labels are enough; more than 4,000 no longer help.",
        "Normals by LoRA alone, with pictures; the cells are Table 4's.",
        [Part("normals", [({}, Sweep(base, axes, family.test, "normals-pooled"))], NORMALS)],
        [Claim(f"{b} labels beat {a}", "normals", {"labels": b}, {"labels": a}) for a, b in itertools.pairwise(names)],
        (published.TABLE4,),
        world.notes,
    )


def fig10(world: World) -> Study:
    family = world.families[0]
    layers = [Choice("all", {"adapter": "lora"}), *(Choice(k, {"adapter.targets": v}) for k, v in world.layers.items())]
    sweep = Sweep(
        lora_of(world, family), (Axis("layers", tuple(layers)), seed_axis(world)), family.test, "normals-pooled"
    )
    pairs = [("all", name) for name in world.layers] + [("self", "cross"), ("up", "down"), ("up", "mid")]
    known = {"all", *world.layers}
    return Study(
        "fig10",
        "Which layers carry the intrinsics",
        "Adapters on all attention layers; self-attention and the decoding half matter most.",
        f"Normals from {world.usual} labels, rank 8, the same steps and rate for every choice of layers.",
        [Part("normals", [({}, sweep)], NORMALS)],
        [
            Claim(f"{a} beats {b}", "normals", {"layers": a}, {"layers": b})
            for a, b in pairs
            if a in known and b in known
        ],
        footnotes=("Fewer layers are fewer parameters: the columns of the table say how many.",),
    )


def fig11(world: World) -> Study:
    family = world.families[0]
    ways = Axis("method", tuple(way_of(kind, family) for kind in (LORA, RANDOM)))
    steps = Axis(
        "train.steps", tuple(Choice(f"{n:,}", {"train.steps": n, "train.keep_every": n // 4}) for n in world.lengths)
    )
    base = {k: v for k, v in base_of(world, family).items() if k not in ("train.steps", "train.keep_every")}
    sweep = Sweep(base | count_of(world, family), (steps, ways, seed_axis(world)), family.test, "normals-pooled")
    return Study(
        "fig11",
        "The same adapter on a network of random weights",
        "An adapter on a network that was never trained cannot draw intrinsics: what it draws was in the generator.",
        "Normals by the number of training steps, with pictures. An adapter on random weights learns something by itself.",
        [Part("normals", [({}, sweep)], NORMALS)],
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
        (LORA, lora_of(world, one), {}),
        *((name, {**base_of(world, one), **settings}, {}) for name, settings in world.others.items()),
        ("LoRA on AUG", lora_of(world, many), {"steps": 1, "cfg": 1.0}),
        *(
            (name, {**base_of(world, many), **settings}, {"steps": 1, "cfg": 1.0})
            for name, settings in world.others_many.items()
        ),
    ]
    said = {"intrinsic.prompt": world.prompts["normals"]} if "normals" in world.prompts else {}
    rows.append(("InstructPix2Pix prompting", {**base_of(world, many), "method": "prompt", **said}, {}))
    rows += [
        (f"SDEdit prompting, strength {s:g}", {**base_of(world, sdedit), "method": "prompt", **said}, {"strength": s})
        for s in world.strengths
    ]
    rows.append((MEAN, {**base_of(world, one), "method": "mean-map"}, {}))
    sweeps = [
        ({"method": label}, single(settings, one.test, "normals-pooled", draw=draw)) for label, settings, draw in rows
    ]
    others = [label for label, _, _ in rows if label not in (LORA, MEAN)]
    return Study(
        "fig13",
        "Alternatives to LoRA",
        "Textual inversion, visual instruction inversion, instruction prompting and SDEdit do not draw intrinsics; LoRA does.",
        f"Normals from the same {world.usual} labels; prompting and SDEdit are not trained. Other kinds of adapters have "
        "about as many parameters as rank 8.",
        [Part("normals", sweeps, NORMALS)],
        [Claim(f"LoRA beats {label}", "normals", {"method": LORA}, {"method": label}) for label in [*others, MEAN]],
    )


def fig14(world: World) -> Study:
    many = world.many
    sweeps = [
        (
            {"steps": str(n), "guidance": f"{g:g}"},
            single(lora_of(world, many), many.test, "normals-pooled", draw={"steps": n, "cfg": g}),
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
        [Part("normals", sweeps, NORMALS)],
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
        ({"method": "AUG, sees the picture", "strength": ""}, single(lora_of(world, many), many.test, "normals-pooled"))
    ]
    sweeps += [
        (
            {"method": "SDEdit", "strength": f"{s:g}"},
            single(lora_of(world, sdedit), sdedit.test, "normals-pooled", draw={"strength": s, "cfg": 1.0}),
        )
        for s in world.strengths
    ]
    return Study(
        "fig15",
        "Seeing the picture against starting from it (SDEdit)",
        "Without the picture's latent beside the noise, maps do not line up with the picture.",
        "The same network and recipe; SDEdit starts from the noised picture and sees it no other way.",
        [Part("normals", sweeps, NORMALS)],
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
