"""Studies: what they plan in each world, how claims are decided, what a reproduction leaves and never does twice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ilora_core.errors import ConfigError, DataError, UnknownName
from ilora_core.plugins import load_plugins
from ilora_core.reproduce import STUDIES, Claim, Part, Reproduced, Study, load_world, make_study, reproduce
from ilora_core.reproduce.markdown import study_markdown
from ilora_core.reproduce.run import plan_study
from ilora_core.reproduce.world import Family, World
from ilora_core.sweep import Axis, Finished, Sweep

BASE = {
    "generator": "toy",
    "source": "toys",
    "intrinsic": "normals",
    "validation": 2,
    "train.steps": 8,
    "train.lr": 1e-2,
    "train.keep_every": 2,
    "runtime.device": "cpu",
}
WAYS = Axis.of("method", ("adapter", "mean-map"))
LONG, SHORT = {"train.steps": "40", "method": "adapter"}, {"train.steps": "1", "method": "adapter"}


@pytest.fixture(scope="module")
def host():
    return load_plugins()


@pytest.fixture
def world(sweep_toys):
    family = Family("toy", {}, "source.n", "toys:test:6")
    made = dict.fromkeys(("families", "labels", "seeds", "ranks", "steps", "guidance", "strengths"), ())
    return World(
        "toys", "Toys.", True, **made, usual=4, validation=2, layers={}, many=family, sdedit=family, quality=None
    )


def study(**changes) -> Study:
    steps = Axis.of("train.steps", (1, 40))
    base = {k: v for k, v in BASE.items() if k not in ("train.steps", "train.keep_every")} | {"train.keep_every": 50}
    part = Part("normals", [({}, Sweep(base, (steps, WAYS, Axis.of("train.seed", (0, 1))), "toys:test:6"))])
    claims = (
        Claim("training helps", "normals", LONG, SHORT),
        Claim("training hurts", "normals", SHORT, LONG),
        Claim("the mean map beats itself", "normals", *[{"train.steps": n, "method": "mean-map"} for n in ("1", "40")]),
    )
    return replace(Study("toy1", "Toys", "They say so.", "We try.", (part,), claims), **changes)


def run(what, world, out, **options) -> tuple[Reproduced, list]:
    events = list(reproduce(what, world, out, **options))
    return events[-1], events


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_of_the_rooms_world_can_be_planned(host, name, quick):
    made = make_study(name, load_world("rooms", quick=quick))
    plans = plan_study(made, host)
    assert made.claims or name in ("table2", "table5")
    for part, own in zip(made.parts, plans, strict=True):
        labels = [
            {**outer, **{k: v for k, v in point.labels.items() if k != "train.seed"}}
            for (outer, _), plan in zip(part.sweeps, own, strict=True)
            for point, _ in plan.points
        ]
        for claim in (c for c in made.claims if c.part == part.title):
            for side in (claim.better, claim.worse):
                rows = {tuple(sorted(row.items())) for row in labels if side.items() <= row.items()}
                assert len(rows) == 1, (claim.text, side)
    assert {c.part for c in made.claims} <= {part.title for part in made.parts}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_of_the_papers_world_can_be_planned(host, tmp_path, name):
    made = make_study(name, load_world("paper", data=str(tmp_path)))
    plans = plan_study(made, host)
    assert all(plan.cells for own in plans for plan in own)


def test_studies_share_their_cells(host):
    world = load_world("rooms")
    cells = {
        name: {cell.hash for own in plan_study(make_study(name, world), host) for plan in own for cell in plan.cells}
        for name in ("table1", "table2", "table4", "fig9")
    }
    assert cells["fig9"] < cells["table4"]
    assert cells["table1"] == cells["table2"]
    assert cells["table2"] & cells["table4"]


def test_worlds_and_targets_that_are_not_there():
    with pytest.raises(UnknownName, match="'mars'; there are rooms, paper"):
        load_world("mars")
    with pytest.raises(ConfigError, match="--data"):
        load_world("paper")
    with pytest.raises(UnknownName, match="'table9'; there are table1"):
        make_study("table9", load_world("rooms"))


def test_claims_are_decided_and_everything_is_written(world, tmp_path):
    end, _ = run(study(), world, tmp_path / "out")
    assert [one.verdict for one in end.decided] == ["holds", "the other way round", "undecided"]
    assert end.failed == 0
    kept = json.loads(end.files["results.json"].read_text(encoding="utf-8"))
    rows = kept["parts"][0]["rows"]
    assert [row["labels"] for row in rows] == [
        {"train.steps": steps, "method": method} for steps in ("1", "40") for method in ("adapter", "mean-map")
    ]
    assert all(row["seeds"] == 2 and row["costs"]["cpu_s"] > 0 for row in rows)
    assert rows[0]["costs"]["trained"] > rows[1]["costs"]["trained"] == 0
    assert kept["pictures"] == ["normals-plot-1.svg", "normals-plot-2.svg", "normals-1.png"]
    assert all((end.files["results.json"].parent / name).stat().st_size > 200 for name in kept["pictures"])
    assert str(tmp_path) not in end.files["results.json"].read_text(encoding="utf-8")
    text = end.files["report.md"].read_text(encoding="utf-8")
    assert text == study_markdown(kept)
    assert "| training helps | **holds** | −" in text
    assert "Of 3 statements tested: 1 hold, 1 are the other way round, 1 are undecided." in text
    report = end.files["report.html"].read_text(encoding="utf-8")
    assert "They say so." in report
    assert "training hurts" in report


def test_nothing_is_computed_twice(world, tmp_path, sweep_toys):
    first, _ = run(study(), world, tmp_path / "out")
    done = sweep_toys.read_text()
    again, events = run(study(), world, tmp_path / "out")
    assert sweep_toys.read_text() == done
    assert not [event for event in events if isinstance(event, Finished)]
    assert again.results["parts"] == first.results["parts"]


def test_a_cell_that_fails_leaves_its_claims_open(world, tmp_path):
    sweep = Sweep({**BASE, "generator.trap": str(tmp_path)}, (), "toys:test:6")
    part = Part("normals", [({"row": "a"}, sweep), ({"row": "b"}, Sweep(BASE, (), "toys:test:6"))])
    claim = Claim("a beats b", "normals", {"row": "a"}, {"row": "b"})
    end, _ = run(study(parts=(part,), claims=(claim,)), world, tmp_path / "out")
    assert end.failed == 1
    assert end.decided[0].verdict == "not computed"
    assert "not computed" in end.files["report.md"].read_text(encoding="utf-8")


def test_one_table_holds_one_protocol(world, tmp_path):
    sweeps = [({"row": p}, Sweep(BASE, (), "toys:test:6", p)) for p in ("normals-pooled", "normals-per-image")]
    with pytest.raises(
        DataError, match="one table cannot hold normals by normals-per-image and normals by normals-pooled"
    ):
        run(study(parts=(Part("normals", sweeps),), claims=()), world, tmp_path / "out")


def test_drawing_settings_share_the_fit(world, tmp_path, sweep_toys):
    rows = [({"timestep": str(t)}, Sweep(BASE, (), "toys:test:6", draw={"timestep": t})) for t in (1, 2)]
    end, _ = run(study(parts=(Part("normals", rows),), claims=()), world, tmp_path / "out")
    assert len(sweep_toys.read_text().splitlines()) == 8  # one fit
    (cell,) = [path for path in (tmp_path / "out" / "cells").iterdir() if path.is_dir()]
    assert len(list(cell.glob("evaluation-*.json"))) == 2
    assert end.failed == 0
