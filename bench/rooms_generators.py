"""Adapters on a rooms generator that draws its own rooms, beside the mean map and a network of random weights.

    python bench/rooms_generators.py --generator rooms-stylegan2 [--steps 600] [--out FOLDER]

Scores are agreement with the rooms labeler on samples that no adapter was fitted to; the labeler's own error on rooms with exact
truth stands beside them (`--judged`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from record import record

from ilora_rooms.experiment import Rows
from ilora_rooms.labeller import labeler
from ilora_rooms.labeller_report import score_labeller
from ilora_rooms.sampled import CONTROLS, Settings, run, score_real
from ilora_rooms.source import RoomsSource


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--generator", choices=sorted(CONTROLS), default="rooms-stylegan2")
    parser.add_argument("--intrinsics", default=",".join(Settings.intrinsics))
    parser.add_argument("--adapt", choices=("attention", "convolutions"), help="rooms-vqgan: what adapters attach to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--judged", type=int, default=100, help="test rooms that the labeler itself is scored on")
    parser.add_argument(
        "--real", type=int, default=40, help="test rooms to encode, or invert, for figures against exact maps; 0 = none"
    )
    parser.add_argument("--inversion-steps", type=int, default=300, help="for a generator without an encoder")
    parser.add_argument("--out", type=Path, help="keep adapters, grids and figures here")
    parser.add_argument("--lr", type=float, default=Settings.lr)
    for name in ("samples", "test", "steps", "batch", "rank", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    args = vars(parser.parse_args())
    out, judged = args.pop("out"), args.pop("judged")
    real, steps = args.pop("real"), args.pop("inversion_steps")
    adapt, names = args.pop("adapt"), tuple(args.pop("intrinsics").split(","))
    settings = Settings(**args, intrinsics=names, generator_settings={"adapt": adapt} if adapt else {})
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        results = run(folder, settings, say=lambda text: print(text, flush=True))
        if real:
            results["real"] = score_real(folder, settings, n=real, steps=steps)
            print(
                f"real rooms: the generator's own pictures of them have {results['real']['psnr_db']:.1f} dB", flush=True
            )
    labels, test = Rows.of(RoomsSource(n=250)), Rows.of(RoomsSource(split="test", n=judged))
    own = {
        what: {method: {name: vars(figure) for name, figure in e.figures.items()} for method, e in methods.items()}
        for what, methods in score_labeller(labeler(), test, labels).items()
    }
    path = record(
        "-".join(filter(None, ("rooms-generators", settings.generator, adapt))),
        torch.device(settings.device),
        settings={**vars(settings), "judged": judged, "real": real},
        results={**results, "labeler on rooms": own},
    )
    print(path.name)


if __name__ == "__main__":
    main()
