"""Writes docs/results.md from recorded reproductions.

python docs/make_results.py --from runs/reproduce/rooms   # copy what was reproduced there into docs/results/, then write the page
python docs/make_results.py                               # write the page from docs/results/
python docs/make_results.py --check                       # exit with 1 when it is stale
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "main", "render"]

PAGE = Path(__file__).with_name("results.md")
RECORDS = Path(__file__).with_name("results")
_SAME_FITS = {"table1": "table2"}
_READING = Path(__file__).with_name("results") / "reading.md"
_HEAD = """# Results: the paper's tables and figures on rooms

Written by `python docs/make_results.py` from the records in [docs/results](results); do not edit it by hand.

Every number below comes out of the command that stands with it; `ilora reproduce all` makes all of them, offline, and keeps its
cells, so that a part of it can be checked by itself. Protocols: [conventions.md](conventions.md#evaluation-protocols). CPU time
and memory are those of one fit with its preparation, by one thread on a machine that had other work to do: compare them within a
table. Wall time is left out for that reason.
"""


def render() -> str:
    """The page as Markdown."""
    from ilora_core.reproduce import STUDIES
    from ilora_core.reproduce.markdown import study_markdown

    found = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in RECORDS.glob("*/results.json")}
    ordered = [found[name] for name in STUDIES if name in found]
    parts = [_HEAD, _machine(ordered), _READING.read_text(encoding="utf-8"), _verdicts(ordered)]
    parts += [study_markdown(_once(one, found), level=2, pictures=f"results/{one['study']}/") for one in ordered]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _once(record: dict[str, Any], records: Collection[str]) -> dict[str, Any]:
    """Without tables and pictures that stand at another study of the same fits."""
    twin = _SAME_FITS.get(record["study"])
    if twin not in records:
        return record
    return {**record, "parts": [], "pictures": [], "about": f"{record['about']} Tables and pictures stand there."}


def _machine(records: Sequence[dict[str, Any]]) -> str:
    devices = dict.fromkeys(f"{r['device'].get('model', r['device']['name'])}, {r['device']['type']}" for r in records)
    dates = sorted(r["date"][:10] for r in records)
    versions = dict.fromkeys(f"torch {r['versions']['torch']}, peft {r['versions'].get('peft', '?')}" for r in records)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"Recorded {when} on {' and '.join(devices)}; {' and '.join(versions)}.\n"


def _verdicts(records: Sequence[dict[str, Any]]) -> str:
    """A line per study: how many of the statements tested hold."""
    lines = ["| | | hold | other way round | undecided |", "| --- | --- | ---: | ---: | ---: |"]
    for record in records:
        counts = [
            sum(c["verdict"] == v for c in record["claims"]) for v in ("holds", "the other way round", "undecided")
        ]
        if record["claims"]:
            lines.append(f"| {record['study']} | {record['title']} | {counts[0]} | {counts[1]} | {counts[2]} |")
    return "## Statements tested\n\n" + "\n".join(lines) + "\n"


def _copy(source: Path) -> None:
    """Records and pictures of every study in `source`; those of quick runs are refused."""
    for path in sorted(source.glob("*/results.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["quick"]:
            sys.exit(f"{path} is of a quick run: only full ones are recorded.")
        folder = RECORDS / record["study"]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pictures = [] if record["study"] in _SAME_FITS else record["pictures"]
        for name in ("results.json", *pictures):
            shutil.copy(path.parent / name, folder / name)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from", dest="source", type=Path, help="a folder of `ilora reproduce` to record")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the page is stale")
    options = parser.parse_args()
    if options.source:
        _copy(options.source)
    text = render()
    if options.check:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print("docs/results.md is up to date" if fresh else "docs/results.md is stale: python docs/make_results.py")
        return 0 if fresh else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.name}, {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
