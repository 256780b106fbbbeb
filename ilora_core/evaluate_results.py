"""Results of evaluations beside each other: every protocol's leading figures, and results that were kept as JSON.

    results = {"marigold-lsq": {"ours": evaluation}}             # protocol -> method -> Evaluation
    earlier = read_results("earlier.json")                       # written by `ilora evaluate --json`
    results = merge_results(results, earlier, where="earlier.json")

Figures by unlike protocols, limits, pictures or pixels say nothing about each other: merging refuses them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilora_core.errors import DataError
from ilora_core.evaluate import Evaluation

__all__ = ["Results", "check_mergeable", "leading_figures", "merge_results", "read_results", "side_by_side"]

Results = Mapping[str, Mapping[str, Evaluation]]
"""Protocol -> method -> Evaluation."""

_LEADING = ("mean_deg", "median_deg", "below_11_25", "rms01", "delta1_01", "abs_rel", "delta1", "rms", "si_rms", "lmse")


def leading_figures(evaluation: Evaluation) -> tuple[str, ...]:
    """The few figures that stand for a protocol where several are shown; its first one if none is known."""
    return tuple(name for name in evaluation.figures if name in _LEADING) or tuple(evaluation.figures)[:1]


def side_by_side(results: Results) -> dict[str, dict[str, dict[str, float | None]]]:
    """Method -> protocol -> leading figures, as plain data."""
    table: dict[str, dict[str, dict[str, float | None]]] = {}
    for protocol, methods in results.items():
        for method, found in methods.items():
            figures = found.to_json()["figures"]
            table.setdefault(method, {})[protocol] = {name: figures[name]["value"] for name in leading_figures(found)}
    return table


def read_results(path: Path | str) -> dict[str, dict[str, Evaluation]]:
    """The results in a file that `ilora evaluate --json` wrote. Raises DataError that names it."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            protocol: {method: _evaluation(found, protocol) for method, found in methods.items()}
            for protocol, methods in data["results"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise DataError(
            f"{path} does not hold results of `ilora evaluate --json` ({reason}). Write it anew: ilora evaluate … "
            "--json > FILE."
        ) from error


def merge_results(
    results: Results, earlier: Results, *, where: str = "the other side", same_pixels: bool = True
) -> dict[str, dict[str, Evaluation]]:
    """`results` with the methods of `earlier` after its own, under each of its protocols; others of `earlier` are dropped.

    same_pixels  refuse pictures of which other numbers of pixels counted; False where holes were left out

    Raises DataError as `check_mergeable` does, and for other pixels.
    """
    merged: dict[str, dict[str, Evaluation]] = {}
    for protocol, methods in results.items():
        ours = next(iter(methods.values()))
        wanted = {"intrinsic": ours.intrinsic, "protocols": (protocol,), "keys": tuple(ours.pictures)}
        check_mergeable(earlier, **wanted, methods=tuple(methods), where=where)
        for method, theirs in earlier[protocol].items():
            if same_pixels:
                _check_pixels(ours, theirs, f"{method!r} in {where}")
        merged[protocol] = {**methods, **earlier[protocol]}
    return merged


def check_mergeable(
    earlier: Results,
    *,
    intrinsic: str,
    protocols: Sequence[str],
    keys: Sequence[str],
    methods: Sequence[str] = (),
    where: str = "the other side",
) -> None:
    """That results by `protocols` of the pictures `keys` may stand beside `earlier`: can be asked before evaluating.

    where  what messages call `earlier`

    Raises DataError when the intrinsic, a protocol, its limits or the pictures differ, or when `earlier` holds one of
    `methods` too.
    """
    if others := {found.intrinsic for rows in earlier.values() for found in rows.values()} - {intrinsic}:
        raise DataError(
            f"{where} evaluates {sorted(others)[0]}, this run {intrinsic}: one table, one intrinsic. "
            f"Give a file that was written with -i {intrinsic}."
        )
    for protocol in protocols:
        if protocol not in earlier:
            raise DataError(_lacking(protocol, earlier, where))
        if twice := sorted(set(methods) & set(earlier[protocol])):
            raise DataError(f"{where} holds a method {twice[0]!r} too; tell them apart: NAME=DIR.")
        for method, theirs in earlier[protocol].items():
            if theirs.protocol != protocol:
                raise DataError(f"{method!r} in {where} was evaluated by {theirs.protocol}, not by {protocol}.")
            _check_keys(keys, theirs, f"{method!r} in {where}")


def _evaluation(data: Any, protocol: str) -> Evaluation:
    found = Evaluation.from_json(data)
    if found.protocol != protocol:
        raise DataError(f"an evaluation by {found.protocol} stands under {protocol}")
    if not found.pictures or not found.figures:
        raise DataError(f"an evaluation by {protocol} holds no picture or no figure")
    if odd := [key for key, row in found.pictures.items() if "pixels" not in row]:
        raise DataError(f"picture {odd[0]!r} does not say how many pixels counted")
    return found


def _lacking(protocol: str, earlier: Results, where: str) -> str:
    """Why `earlier` cannot stand beside results by `protocol`: other limits, or another protocol."""
    stem, known = protocol.partition("@")[0], ", ".join(earlier) or "nothing"
    if akin := [name for name in earlier if name.partition("@")[0] == stem]:
        return (
            f"{where} used other limits of truth: {akin[0]} there, {protocol} here (no @ = 0.001-1000 m). "
            f"Ask for --protocol {akin[0]}, or evaluate those maps again by {protocol}."
        )
    return (
        f"{where} was not evaluated by {protocol}, only by {known}: one table, one protocol. "
        f"Ask for what it holds (--protocol {','.join(earlier)}), or evaluate those maps again by {protocol}."
    )


def _check_keys(keys: Sequence[str], theirs: Evaluation, which: str) -> None:
    if lonely := sorted(set(keys) ^ set(theirs.pictures)):
        side = "only here" if lonely[0] in keys else "only there"
        raise DataError(
            f"{which} was evaluated on other pictures: {len(theirs.pictures)} there, {len(keys)} here, {len(lonely)} not "
            f"on both sides ({lonely[0]!r} {side}). Evaluate both on the same pictures."
        )


def _check_pixels(ours: Evaluation, theirs: Evaluation, which: str) -> None:
    counts = [(key, ours.pictures[key]["pixels"], row["pixels"]) for key, row in theirs.pictures.items()]
    if odd := [each for each in counts if each[1] != each[2]]:
        key, here, there = odd[0]
        raise DataError(
            f"{which} was evaluated on other pixels: of {key!r} {there:g} counted there, {here:g} here. Use the same "
            "truth and masks, or --skip-holes if pixels were left out on purpose."
        )
