"""`ilora evaluate`: folders of predicted maps against true ones, with intervals, several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, print_json
from ilora_cli.terminal_tables import fitting_tables, rich_table
from ilora_core.errors import ConfigError

if TYPE_CHECKING:
    from ilora_core.evaluate import Comparison, Evaluation
    from ilora_core.evaluate_folders import MapFolder, Match
    from ilora_core.evaluate_results import Results
    from ilora_core.intrinsics import Intrinsic

__all__ = ["evaluate"]


def evaluate(
    predictions: Annotated[
        list[str], typer.Argument(help="Folders of maps, one per method: DIR or NAME=DIR; DIR/<intrinsic> is found.")
    ],
    truth: Annotated[str, typer.Option(help="Folder of true maps, or of pairs: DIR/<intrinsic>, DIR/mask.")],
    intrinsic: Annotated[str, typer.Option("--intrinsic", "-i", help="What the maps show; a name or a .toml.")],
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Names with commas, or given again, or all. Default: the intrinsic's first."),
    ] = None,
    predicts: Annotated[
        str, typer.Option(help="What predicted depth is: depth (default), disparity, metric (metres).")
    ] = "",
    earlier: Annotated[
        list[str] | None,
        typer.Option("--with", help="Results of an earlier --json (a file) to put beside the new ones; repeatable."),
    ] = None,
    mask: Annotated[str, typer.Option(help="Folder of masks, bright where the truth counts.")] = "",
    truth_frame: Annotated[str, typer.Option(help="Axes of true normals: opencv, opengl, directx")] = "opencv",
    frame: Annotated[str, typer.Option(help="Axes of predicted normals: opencv, opengl, directx")] = "opencv",
    truth_scale: Annotated[float | None, typer.Option(help="True value = stored number × this: 0.001 for mm.")] = None,
    scale: Annotated[float | None, typer.Option(help="Predicted value = stored number × this.")] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Bring predictions to the truth's size.")] = False,
    skip_holes: Annotated[bool, typer.Option("--skip-holes", help="Leave out pixels that a prediction lacks.")] = False,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    report: Annotated[str, typer.Option(help="Write a report to this file (report.html).")] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Machine-readable results, with every picture's figures.")
    ] = False,
) -> None:
    """Compare predicted maps with true ones. Files are matched by their path without the suffix.

    Every figure stands under its protocol's name, with a 95 % bootstrap interval over pictures. Several protocols are
    taken of the same predictions in one pass and shown side by side. With several methods the first is also compared
    with each other one, picture by picture.
    """
    from ilora_core.evaluate_folders import compare_methods, evaluate_folders, match_keys, open_predictions, open_truth
    from ilora_core.evaluate_report import unmatched_note
    from ilora_core.evaluate_results import check_mergeable, read_results

    folders, said = _methods(predictions), console(stderr=True)
    kept = {path: read_results(path) for path in earlier or []}
    true = open_truth(truth, _intrinsic(truth, intrinsic), mask=mask or None, frame=truth_frame, scale=truth_scale)
    names = _protocols(protocol or [], true.intrinsic, predicts or None)
    methods = {
        name: open_predictions(folder, true.intrinsic, predicts=predicts or None, frame=frame, scale=scale)
        for name, folder in folders.items()
    }
    match = match_keys(true, methods)
    if note := unmatched_note(match.missing):
        said.print(note, style="yellow", markup=False)
    here = {"intrinsic": true.intrinsic.name, "protocols": names, "keys": match.keys, "methods": tuple(methods)}
    for path, found in kept.items():
        check_mergeable(found, **here, where=path)
    with said.status(f"comparing {len(match.keys)} pictures"):
        options: dict[str, Any] = {"resize": resize, "skip_holes": skip_holes, "seed": seed, "resamples": resamples}
        results = evaluate_folders(methods, true, match.keys, protocols=names, **options)
    results = _merged(results, kept, same_pixels=not skip_holes)
    comparisons = compare_methods(results)
    if report:
        sources = {**folders, **{f"earlier: {', '.join(next(iter(r.values()), ()))}": p for p, r in kept.items()}}
        _write_report(report, results, methods, true, truth, sources, match, resize=resize)
        said.print(f"report: {report}", markup=False)
    if json:
        print_json(_as_json(results, comparisons, match, true.intrinsic.name))
    else:
        _show(results, comparisons)


def _methods(items: list[str]) -> dict[str, str]:
    """Name -> folder; a folder without a name goes by its last part, or by its whole path where that is not enough."""
    pairs = [item.split("=", 1) if "=" in item and not Path(item).exists() else ["", item] for item in items]
    last = [Path(folder).name for name, folder in pairs if not name]
    named = [(name or (Path(f).name if last.count(Path(f).name) == 1 else f) or f, f) for name, f in pairs]
    if len(dict(named)) < len(named):
        raise ConfigError("two methods have one name; tell them apart with NAME=DIR.")
    if "truth" in dict(named):
        raise ConfigError("a method cannot be called truth; give it another name with NAME=DIR.")
    return dict(named)


def _intrinsic(truth: str, name: str) -> Intrinsic:
    from ilora_core.folders import infer_intrinsic, load_intrinsic
    from ilora_core.intrinsics import BUILT_IN, get_intrinsic

    if name.endswith(".toml"):
        return load_intrinsic(name)
    if name not in BUILT_IN and (Path(truth) / name).is_dir():
        intrinsic, assumed = infer_intrinsic(truth, name)
        console(stderr=True).print(assumed, markup=False)
        return intrinsic
    return get_intrinsic(name)


def _protocols(items: list[str], intrinsic: Intrinsic, predicts: str | None) -> tuple[str, ...]:
    from ilora_core.metrics.predicted import predicted_kind
    from ilora_core.metrics.protocols import get_protocol, protocols_for

    names = [name.strip() for item in items for name in item.split(",") if name.strip()]
    if names == ["all"]:
        return protocols_for(intrinsic, predicted_kind(intrinsic, predicts))
    wanted = [get_protocol(name, intrinsic, predicts=predicts) for name in names or [None]]
    return tuple(dict.fromkeys(each.name for each in wanted))


def _merged(
    results: dict[str, dict[str, Evaluation]], kept: Mapping[str, Results], *, same_pixels: bool
) -> dict[str, dict[str, Evaluation]]:
    from ilora_core.evaluate_results import merge_results

    for path, earlier in kept.items():
        results = merge_results(results, earlier, where=path, same_pixels=same_pixels)
        if unused := [protocol for protocol in earlier if protocol not in results]:
            console(stderr=True).print(f"not shown of {path}: {', '.join(unused)}", style="yellow", markup=False)
    return results


def _write_report(
    path: str,
    results: Mapping[str, Mapping[str, Evaluation]],
    methods: Mapping[str, MapFolder],
    true: MapFolder,
    truth: str,
    folders: Mapping[str, str],
    match: Match,
    *,
    resize: bool,
) -> None:
    from ilora_core.evaluate_report import evaluation_report, pictures_beside, unmatched_note
    from ilora_core.report import write_report

    facts = {"truth": truth, **folders, "pictures": str(len(match.keys))}
    if note := unmatched_note(match.missing):
        facts["not compared"] = note
    pictures = pictures_beside(truth)
    write_report(path, evaluation_report(results, methods, true, pictures=pictures, facts=facts, resize=resize))


def _as_json(
    results: Mapping[str, Mapping[str, Evaluation]], comparisons: Mapping[str, Comparison], match: Match, name: str
) -> dict[str, Any]:
    from ilora_core.evaluate_results import side_by_side

    return {
        "intrinsic": name,
        "pictures": len(match.keys),
        "missing": {side: list(keys) for side, keys in match.missing.items()},
        "side_by_side": side_by_side(results),
        "results": {p: {m: e.to_json() for m, e in methods.items()} for p, methods in results.items()},
        "comparisons": {label: c.to_json() for label, c in comparisons.items()},
    }


def _show(results: Mapping[str, Mapping[str, Evaluation]], comparisons: Mapping[str, Comparison]) -> None:
    from ilora_core.report import comparison_table, evaluation_table, protocols_table

    out = console()
    if len(results) > 1:
        for part in fitting_tables(protocols_table(results), out.width):
            out.print(part)
    for methods in results.values():
        out.print(rich_table(evaluation_table(methods)))
    if comparisons:
        out.print(rich_table(comparison_table(comparisons)))
