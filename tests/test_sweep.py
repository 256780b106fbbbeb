"""Sweeps in one process: what is computed and what is not, what fails, what is left behind."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
import torch

from ilora_core.errors import ConfigError, DataError, IloraError, UnknownName
from ilora_core.evaluate import Figure, evaluate
from ilora_core.intrinsics import NORMALS
from ilora_core.plugins import load_plugins
from ilora_core.sweep import (
    Axis,
    Choice,
    Failed,
    Finished,
    Planned,
    Started,
    Sweep,
    Swept,
    Working,
    plan_sweep,
    run_sweep,
)
from ilora_core.sweep.report import panels
from ilora_core.sweep.results import Row

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
RANKS = Axis.of("adapter.rank", (1, 2))
SEEDS = Axis.of("train.seed", (0, 1))
pytestmark = pytest.mark.usefixtures("sweep_toys")


def sweep(*axes, test="toys:test:6", **base):
    varied = {key for axis in axes for key in axis.keys}
    return Sweep({**{k: v for k, v in BASE.items() if k not in varied}, **base}, axes, test)


def run(what, out, **options):
    return list(run_sweep(what, out, **options))


def steps(log) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def finished(events):
    return [event.result for event in events if isinstance(event, Finished)]


def test_every_combination_is_fitted_scored_and_kept(sweep_toys, tmp_path):
    events = run(sweep(RANKS, SEEDS), tmp_path / "out")
    assert isinstance(events[0], Planned)
    assert len(events[0].waiting) == 4
    assert [type(e) for e in events if not isinstance(e, Working)][1:] == [Started, Finished] * 4 + [Swept]
    assert steps(sweep_toys) == 4 * 8
    for result in finished(events):
        folder = tmp_path / "out" / "cells" / result.cell.hash
        assert {p.name for p in folder.iterdir()} >= {"cell.json", "cost.json", "fit"}
        assert not list(folder.rglob("checkpoints"))
        assert result.evaluations["normals"].protocol == "normals-pooled"
        assert result.evaluations["normals"].n == 6
        assert result.cost["wall_s"] > 0
        assert result.cost["cpu_s"] > 0
        assert result.cost["peak_mib"] > 10
        rank = result.cell.config.settings["adapter"]["rank"]
        # LoRA on a 3×3 convolution 3 → 6 and a 1×1 one 6 → 3; the network has 3·6·9 + 6 + 6·3 + 3, the codec 6
        assert result.facts["parameters"] == {"trained": rank * (27 + 6 + 6 + 3), "network": 189, "generator": 195}
    assert not list((tmp_path / "out" / "cells").glob(".*"))


def test_a_cells_figures_are_those_of_fit_predict_and_evaluate(tmp_path):
    from sweep_toys import Pictures

    from ilora_core.artefact import find_artefacts
    from ilora_core.fit import fit
    from ilora_core.predict import Predictor

    (result,) = finished(run(sweep(), tmp_path / "out"))
    list(fit(result.cell.config, tmp_path / "alone"))
    drawer = Predictor(find_artefacts(tmp_path / "alone"))
    pairs = [
        (batch.keys[0], drawer(batch.pictures)["normals"][0], *(part[0] for part in batch.maps["normals"]))
        for batch in Pictures(split="test", n=6)
    ]
    assert evaluate(pairs, NORMALS).to_json() == result.evaluations["normals"].to_json()


def test_finished_cells_are_not_touched_by_the_same_or_a_larger_sweep(sweep_toys, tmp_path):
    first = run(sweep(RANKS), tmp_path / "out")
    before, done = files(tmp_path / "out" / "cells"), steps(sweep_toys)
    again = run(sweep(RANKS), tmp_path / "out")
    assert [type(event) for event in again] == [Planned, Swept]
    assert again[-1].results == first[-1].results
    larger = run(sweep(Axis.of("adapter.rank", (2, 1, 3))), tmp_path / "out")
    assert [r.cell.config.settings["adapter"]["rank"] for r in finished(larger)] == [3]
    assert steps(sweep_toys) == done + 8
    assert before.items() <= files(tmp_path / "out" / "cells").items()


def test_another_test_set_is_scored_without_fitting_again(sweep_toys, tmp_path):
    run(sweep(RANKS), tmp_path / "out")
    before, done = files(tmp_path / "out" / "cells"), steps(sweep_toys)
    events = run(sweep(RANKS, test="toys:test:3"), tmp_path / "out")
    assert [result.evaluations["normals"].n for result in finished(events)] == [3, 3]
    assert steps(sweep_toys) == done
    assert before.items() <= files(tmp_path / "out" / "cells").items()


def test_a_closed_sweep_goes_on_in_the_middle_of_a_cell(sweep_toys, tmp_path):
    whole = run(sweep(RANKS), tmp_path / "whole")
    before = steps(sweep_toys)
    events = run_sweep(sweep(RANKS), tmp_path / "parts")
    seen = 0
    for event in events:
        seen += isinstance(event, Working) and type(event.event).__name__ == "Step"
        if seen == 8 + 5:
            events.close()
    assert steps(sweep_toys) == before + 13
    rest = run(sweep(RANKS), tmp_path / "parts")
    assert steps(sweep_toys) == before + 16
    assert [r.cell.config.settings["adapter"]["rank"] for r in finished(rest)] == [2]
    assert figures(rest) == figures(whole)


def figures(events):
    return [cell["evaluations"] for cell in events[-1].results["cells"]]


def test_a_cell_that_fails_is_told_and_tried_again(sweep_toys, tmp_path):
    trap = tmp_path / "trap"
    trap.touch()
    traps = Axis("way", (Choice("safe", {"generator.trap": ""}), Choice("trap", {"generator.trap": str(trap)})))
    events = run(sweep(traps, RANKS), tmp_path / "out")
    failed = [event for event in events if isinstance(event, Failed)]
    assert [str(trap) in event.message for event in failed] == [True, True]
    assert len(finished(events)) == 2
    assert events[-1].failed == 2
    assert [cell["status"] for cell in events[-1].results["cells"]] == ["finished", "finished", "failed", "failed"]
    assert "fell into" in (tmp_path / "out" / "report.html").read_text()
    assert "| trap | 1 | failed |" in (tmp_path / "out" / "table.md").read_text()
    assert len(list((tmp_path / "out" / "cells").glob("*.failed.json"))) == 2
    trap.unlink()
    before = steps(sweep_toys)
    again = run(sweep(traps, RANKS), tmp_path / "out")
    assert steps(sweep_toys) == before + 2 * 8
    assert again[-1].failed == 0
    assert not list((tmp_path / "out" / "cells").glob("*.failed.json"))


def test_the_mean_map_is_computed_once_for_all_that_it_does_not_depend_on(sweep_toys, tmp_path):
    methods = Axis.of("method", ("adapter", "mean-map", "random-init"))
    events = run(sweep(methods, RANKS), tmp_path / "out")
    assert len(events[0].plan.points) == 6
    assert len(events[0].waiting) == 5
    assert steps(sweep_toys) == 4 * 8
    by_method = {}
    for row in events[-1].results["rows"]:
        by_method.setdefault(row["labels"]["method"], []).append(row["figures"]["normals"]["mean_deg"])
    assert by_method["mean-map"][0] == by_method["mean-map"][1]
    assert by_method["adapter"] != by_method["random-init"]
    random = [r.cell for r in finished(events) if r.cell.config.settings.get("generator", {}).get("random_net")]
    assert [cell.method for cell in random] == ["adapter", "adapter"]


def test_the_mean_map_is_that_of_the_pictures_learnt_from(tmp_path):
    from safetensors.torch import load_file
    from sweep_toys import Pictures

    from ilora_core.controls import mean_map
    from ilora_core.data import split_keys

    (result,) = finished(run(sweep(method="mean-map"), tmp_path / "out"))
    batches = [b for b in Pictures() if b.keys[0] not in split_keys(Pictures().keys, 2, seed=0)]
    value, valid = (torch.cat([b.maps["normals"][part] for b in batches]) for part in (0, 1))
    kept = load_file(tmp_path / "out" / "cells" / result.cell.hash / "mean-map" / "normals.safetensors")["map"]
    torch.testing.assert_close(kept, mean_map(NORMALS, value, valid))
    assert result.facts["data"] == {"train": 10, "validation": 2}
    assert result.facts["parameters"] == {"trained": 0}


def test_seeds_are_averaged(tmp_path):
    end = run(sweep(RANKS, SEEDS), tmp_path / "out")[-1]
    values = {
        (cell["points"][0]["adapter.rank"], cell["points"][0]["train.seed"]): cell["evaluations"]["normals"]["figures"]
        for cell in end.results["cells"]
    }
    assert len(end.results["rows"]) == 2
    for row in end.results["rows"]:
        rank = row["labels"]["adapter.rank"]
        mean = (values[rank, "0"]["mean_deg"]["value"] + values[rank, "1"]["mean_deg"]["value"]) / 2
        found = row["figures"]["normals"]["mean_deg"]
        assert found["value"] == pytest.approx(mean)
        assert found["low"] < mean < found["high"]


def test_tables_and_report(tmp_path):
    axes = (RANKS, Axis.of("train.lr", (1e-3, 1e-2)), SEEDS)
    end = run(sweep(*axes, intrinsic="normals,depth", **{"train.steps": 2}), tmp_path / "out")[-1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("cells", "sweep.json", "table.csv", "table.md", "report.html")
    }
    assert json.loads((tmp_path / "out" / "sweep.json").read_text()) == end.results
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    assert len(lines) == 4
    row = end.results["rows"][3]
    assert {name: lines[3][name] for name in row["labels"]} == row["labels"]
    assert float(lines[3]["depth.rms01"]) == pytest.approx(row["figures"]["depth"]["rms01"]["value"])
    assert lines[3]["normals.protocol"] == "normals-pooled"
    assert lines[3]["normals.median_deg.low"] == ""  # of several seeds the pooled median has no interval
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| adapter.rank | train.lr | seeds |" in table
    assert "normals by normals-pooled on 6 pictures; depth by relative01 on 6 pictures" in table
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("<svg") == 2 * 2
    for title in ("normals by adapter.rank", "depth by train.lr"):
        assert title in html
    assert "train.lr (log scale)" in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "generator toy" not in html
    assert "CC0-1.0" in html


def test_a_large_grid_is_plotted_at_reference_values():
    axes = (
        RANKS,
        Axis.of("adapter.alpha", (1.0, 2.0, 3.0)),
        Axis.of("train.schedule", ("constant", "linear", "cosine")),
    )
    plan = plan_sweep(sweep(*axes, **{"adapter.alpha": 2.0}), load_plugins())
    rows = [
        Row(point.labels, (), {"normals": {"mean_deg": Figure(float(i), i - 0.5, i + 0.5, "°", False)}})
        for i, (point, _) in enumerate(plan.points)
    ]
    by_rank, by_alpha, by_schedule = panels(plan, rows)
    assert by_rank.title == "normals by adapter.rank, at adapter.alpha 2.0, train.schedule constant"
    assert by_rank.series[0].points == [(1.0, 3.0), (2.0, 12.0)]
    assert by_rank.series[0].band == [(1.0, 2.5, 3.5), (2.0, 11.5, 12.5)]
    assert by_alpha.title == "normals by adapter.alpha"  # 2 × 3 others: a line each
    assert [series.name for series in by_alpha.series][:2] == [
        "adapter.rank 1, train.schedule constant",
        "adapter.rank 1, train.schedule linear",
    ]
    assert [text for _, text in by_schedule.ticks] == ["constant", "linear", "cosine"]
    assert not any(series.joined for series in by_schedule.series)  # names have no order


def test_without_a_test_set_each_fits_validation_pictures_count(tmp_path):
    (result,) = finished(run(sweep(test=""), tmp_path / "out"))
    (record,) = (tmp_path / "out" / "cells" / result.cell.hash).glob("fit/normals/run.json")
    best = json.loads(record.read_text())["best"]
    assert result.evaluations["normals"].n == 2
    per_picture = [row["mean_deg"] for row in result.evaluations["normals"].pictures.values()]
    assert sum(per_picture) / 2 == pytest.approx(best["value"], rel=1e-4)


def test_a_folder_of_pairs_is_a_test_set(tmp_path, helpers):
    pairs = helpers.save_pairs(tmp_path / "pairs", n=3)
    end = run(sweep(test=f"{pairs}:2"), tmp_path / "out")
    (result,) = finished(end)
    assert set(result.evaluations["normals"].pictures) == {"000", "001"}


def test_samples_are_scored_by_agreement_with_a_labeler(tmp_path, monkeypatch):
    monkeypatch.setenv("ILORA_CACHE", str(tmp_path / "cache"))
    own = {**BASE, "source": "", "samples": 8, "labeler": "judge"}
    events = run(Sweep(own, (RANKS,), "samples:5"), tmp_path / "out")
    assert [set(r.evaluations["normals"].pictures) for r in finished(events)] == [
        {f"sample-1000-{i:06d}" for i in range(5)}
    ] * 2
    judges = Axis.of("labeler", ("judge", "other-judge"))
    with pytest.raises(ConfigError, match=r"labeler=judge"):
        run(Sweep(own, (judges,), "samples:5"), tmp_path / "out")
    both = run(Sweep(own, (judges,), "samples:5:labeler=judge"), tmp_path / "both")
    assert len(finished(both)) == 2


def test_disparity_is_scored_as_depth(tmp_path):
    from ilora_core.intrinsics import DEPTH
    from ilora_core.protocols import Batch
    from ilora_core.sources import TensorSource
    from ilora_core.sweep.compute import _Pairs

    truth = torch.linspace(1, 3, 64).view(1, 1, 8, 8)
    valid = torch.ones_like(truth, dtype=torch.bool)
    source = TensorSource(torch.zeros(1, 3, 8, 8), {"depth": (truth, valid)}, intrinsics=(DEPTH,), keys=("a",))

    class Drawer:
        intrinsic = replace(DEPTH, kind="affine_disparity")

        def __call__(self, batch: Batch):
            return DEPTH.to_picture(truth)[:, :1]  # near = bright = large

    found = evaluate(_Pairs(source, DEPTH, Drawer()), DEPTH)
    assert found.figures["rms01"].value == pytest.approx(0, abs=1e-6)


def test_the_mean_map_does_not_depend_on_the_loss():
    losses = Axis.of("intrinsic.loss", ("mse", "l1"))
    assert len(plan_sweep(sweep(losses, method="mean-map"), load_plugins()).cells) == 1
    assert len(plan_sweep(sweep(losses), load_plugins()).cells) == 2


def test_losses_and_kinds_of_adapters_are_axes(tmp_path):
    losses = Axis.of("intrinsic.loss", ("mse", "cosine+l1"))
    ways = Axis("way", (Choice("lora", {"adapter": "lora"}), Choice("full", {"adapter": "full", "train.lr": 1e-3})))
    events = run(sweep(losses, ways), tmp_path / "out")
    values = [row["figures"]["normals"]["mean_deg"]["value"] for row in events[-1].results["rows"]]
    assert len(set(values)) == 4
    full = [r for r in finished(events) if r.cell.config.adapter == "full"]
    assert full[0].facts["parameters"] == {"trained": 189, "network": 189, "generator": 195}
    assert full[0].cell.config.train.lr == 1e-3


def test_damaged_and_foreign_cells_are_not_taken_for_finished(tmp_path):
    (result,) = finished(run(sweep(), tmp_path / "out"))
    record = tmp_path / "out" / "cells" / result.cell.hash / "cell.json"
    record.write_text(record.read_text().replace('"toys"', '"boys"'))
    with pytest.raises(DataError, match="Delete it"):
        run(sweep(), tmp_path / "out")


@pytest.mark.parametrize(
    ("axes", "base", "test", "message"),
    [
        (
            (),
            {"source": "", "samples": 5, "labeler": "judge", "method": "random-init"},
            "samples:5",
            "draws other pictures",
        ),
        ((), {"labeler": "judge", "generator.random_net": True}, "samples:5", "draws other pictures"),
        ((), {"source": "", "samples": 5, "labeler": "judge"}, "samples:5:seed=0", "the very samples"),
        ((), {}, "samples:5:labeler=nobody", "no labeler is called 'nobody'"),
        ((Axis.of("train.lr", (1e-3, -1.0)),), {}, "toys:test", r"train.lr=-1.0: train.lr must be zero or more"),
        ((Axis.of("train.steps", ("many",)),), {}, "toys:test", "train.steps must be int, not 'many'"),
        ((Axis.of("adapter.rank", (1, 0)),), {}, "toys:test", "rank must be at least 1"),
        ((Axis.of("adapter.rank", (1, "two")),), {}, "toys:test", "rank is int, not 'two'"),
        ((Axis.of("adapter.ranc", (1, 2)),), {}, "toys:test", "Did you mean 'rank'"),
        ((Axis.of("generator.width", (6, 6.5)),), {}, "toys:test", "width is int, not 6.5"),
        ((Axis.of("generator", ("toy", "tot")),), {}, "toys:test", "no generator is called 'tot'. Did you mean toy"),
        ((Axis.of("limit", (5, "all")),), {}, "toys:test", "limit must be int, not 'all'"),
        ((Axis.of("limit", (5, 2)),), {}, "toys:test", "limit=2 leaves nothing to learn from"),
        ((Axis.of("intrinsic.loss", ("mse", "huber")),), {}, "toys:test", "huber"),
        ((Axis.of("method", ("adapter", "magic")),), {}, "toys:test", "adapter, random-init, mean-map"),
        ((), {}, "nobody:test", "--test: no source is called 'nobody'"),
        ((), {}, "toys:train:5", "the very pictures that are learnt from"),
        ((), {}, "toys:5", "the very pictures that are learnt from"),
        ((), {}, "toys:test:size=3", "source 'toys' has no setting 'size'"),
        ((), {}, "./nowhere", "no folder"),
        ((), {}, "samples:5", "add :labeler=NAME"),
        ((), {"validation": 0}, "", "give --test"),
        ((), {"intrinsic": "albedo"}, "toys:test", "has no albedo"),
    ],
)
def test_what_makes_no_sense_is_one_error_before_anything_is_made(sweep_toys, tmp_path, axes, base, test, message):
    with pytest.raises(IloraError, match=re.escape(message)):
        run(sweep(*axes, test=test, **base), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_protocols_and_executors(tmp_path):
    with pytest.raises(UnknownName, match="no protocol 'median' for normals"):
        run(Sweep(BASE, (), "toys:test", "median"), tmp_path / "out")
    with pytest.raises(ConfigError, match="sequential, ray, not 'moon'"):
        run(sweep(), tmp_path / "out", on="moon")


def test_the_hash_is_of_the_resolved_configuration():
    host = load_plugins()

    def hashes(*axes, **base):
        return [cell.hash for cell in plan_sweep(sweep(*axes, **base), host).cells]

    assert hashes(RANKS) == hashes(Axis.of("adapter.rank", (1, 2), labels=("one", "two")))
    assert hashes(**{"adapter.rank": 2}) == hashes(RANKS)[1:]
    assert hashes(RANKS, test="toys:test:2") == hashes(RANKS)
    assert len(set(hashes(RANKS) + hashes(RANKS, limit=6))) == 4
    assert len(hashes(RANKS)[0]) == 64
