"""One command for everything that waits for a GPU, in steps of at most ten minutes that can be repeated and resumed.

    python bench/gpu/run.py                            # all that is not done yet
    python bench/gpu/run.py --only pretrain            # one step
    python bench/gpu/run.py --total-minutes 9          # stop before ten minutes are over; call again to go on
    python bench/gpu/run.py --dry-run                  # say what would run
    python bench/gpu/run.py --install DIR              # take over results and weights that another machine left in DIR

What a step leaves is in --out (flat files, a few MB each): carry that folder along and the next call goes on, on this
machine or another one. Results go to bench/results/ as well, the newest replacing older ones. A step that fails is noted
with its error in --out/state.json and does not stop the others; the next call tries it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from machine import Settings, run_steps  # noqa: E402
from steps import STEPS, install  # noqa: E402

__all__ = ["main", "parse"]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of {', '.join(s.name for s in STEPS)}")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="what is carried between machines")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "ilora-gpu", help="what is not")
    parser.add_argument("--minutes", type=float, default=9.0, help="limit of one step, at most 10")
    parser.add_argument("--total-minutes", type=float, default=float("inf"), help="limit of this call")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--visits", type=int, default=3_000_000, help="of the diffusion model; other targets scale with it"
    )
    parser.add_argument("--again", action="store_true", help="repeat steps that are done")
    parser.add_argument("--keep-weights", action="store_true", help="leave the package's own weights as they are")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--install", type=Path, metavar="DIR", help="take over what lies in DIR, and exit")
    args = parser.parse_args(argv)
    if not 0 < args.minutes <= 10:
        parser.error("--minutes lies between 0 and 10")
    if unknown := sorted(set(args.only or ()) - {step.name for step in STEPS}):
        parser.error(f"no step is called {unknown[0]!r}; there are {', '.join(s.name for s in STEPS)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run, or install. The exit code is 1 when a step failed."""
    args = parse(argv)
    if args.install:
        for line in install(args.install, keep_weights=args.keep_weights):
            print(line)
        return 0
    settings = Settings(
        out=args.out.resolve(),
        scratch=args.scratch.resolve(),
        minutes=args.minutes,
        total_minutes=args.total_minutes,
        device=args.device,
        visits=args.visits,
        again=args.again,
        keep_weights=args.keep_weights,
        dry_run=args.dry_run,
    )
    chosen = [step for step in STEPS if not args.only or step.name in args.only]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return run_steps(chosen, settings)


if __name__ == "__main__":
    sys.exit(main())
