"""What decides the card's settings: every combination of views, blend and working size on development rooms.

    python -m ilora_paradigms.choose --weights FOLDER                          # 64² rooms
    python -m ilora_paradigms.choose --weights FOLDER --size 192 --n 12        # larger pictures: which working size?

Prints the mean figures and `dev`, the mean of A si, S si and ord-err. Neither test set is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch

from ilora_paradigms.dev import rooms
from ilora_paradigms.judge import FIGURES
from ilora_paradigms.labeller import SplitLabeler, blend_labeler, paradigms_labeler
from ilora_paradigms.scores import from_labeler, score

__all__ = ["main"]


def candidates(weights: str, size: int) -> Iterator[tuple[str, SplitLabeler]]:
    """Name and labeler of every combination."""
    for work_size in sorted({64, 96, 128, size} if size > 64 else {64}):
        for views, blend in ((1, 0.0), (8, 0.0), (1, 0.25), (8, 0.25), (1, 0.5)):
            net = paradigms_labeler(weights=weights, views=views, blend=blend, work_size=work_size)
            yield f"work {work_size} views {views} blend {blend}", net
    yield "retinex-blend", blend_labeler()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="", help="a folder written by pretrain --export; default: the shipped")
    parser.add_argument("--n", type=int, default=50, help="development rooms")
    parser.add_argument("--size", type=int, default=64, help="side of the rooms")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    truth = rooms("labeller", args.n, args.size)
    for name, labeler in candidates(args.weights, args.size):
        means = {figure: found.mean() for figure, found in score(from_labeler(labeler), truth).rows.items()}
        dev = (means["A si"] + means["S si"] + means["ord-err"]) / 3
        told = "  ".join(f"{figure} {means[figure]:.4f}" for figure in FIGURES if "mse" not in figure.split())
        print(f"{name:28s} {told}  dev {dev:.4f}", flush=True)


if __name__ == "__main__":
    main()
