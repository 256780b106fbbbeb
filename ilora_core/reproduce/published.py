"""The paper's own numbers (Du et al., arXiv 2311.17137), as far as they were at hand, and its known errors.

Only what could be checked against a source is here: a table is quoted in part where the rest was not at hand. Tables 2 and 4 and
the hyper-parameters are from the third version; the topics of figures 8 to 15 are known, their plotted values are not.
"""

from __future__ import annotations

from ilora_core.reproduce.study import Published

__all__ = ["ERRORS", "FID", "SHARES", "TABLE2", "TABLE3", "TABLE4", "TABLE5"]

TABLE2 = Published(
    ("", "albedo, RMS", "shading, RMS", "normals and depth"),
    (
        ("all generators", "0.028 to 0.107", "0.0099 to 0.0174", "not at hand row by row"),
        ("VQGAN (FFHQ)", "", "", "only fair"),
    ),
    "Table 2",
    "Agreement with labelers on 500 generated pictures, not truth. A shading RMS of 0.01 is small enough to be a mean square "
    "instead; it is not compared with ours.",
)

TABLE3 = Published(
    ("DIODE", "normals, mean (°)", "median (°)", "depth, RMS", "δ < 1.25 (×100)"),
    (
        ("I-LoRA, one step (SD 1.5)", "20.31", "12.54", "0.205", "44.9"),
        ("I-LoRA, many steps (AUG, SD 2.1)", "23.74", "19.08", "", ""),
        ("Omnidata v2", "18.90", "13.36", "", ""),
    ),
    "Table 3",
    "Photographs, real scanners; depth in [0,1] without a stated normalisation. The order of the rows can be compared, the "
    "numbers cannot.",
)

TABLE4 = Published(
    ("normals on DIODE, mean (°)", "250", "1,000", "4,000", "16,000"),
    (
        ("I-LoRA", "27.73", "22.22", "20.31", "21.26"),
        ("full fine-tuning", "34.40", "25.19", "28.03", "27.39"),
        ("linear probe", "29.10", "28.45", "28.52", "28.22"),
    ),
    "Table 4",
    "Stable Diffusion 1.5, pseudo-labels by Omnidata v2.",
)

TABLE5 = Published(
    ("", "parameters", "adapter (rank 8)", "share", "learning rate", "batch", "steps"),
    (
        ("VQGAN, FFHQ", "873.9 M", "0.13 M", "0.18 %¹", "1e-3", "1", "about 4,000"),
        ("StyleGAN2, FFHQ", "24.8 M", "0.14 M", "0.57 %", "1e-3", "1", "about 4,000"),
        ("StyleGAN2, LSUN bedroom", "24.8 M", "0.14 M", "0.57 %²", "1e-3", "1", "about 4,000"),
        ("StyleGAN-XL, FFHQ", "67.9 M", "0.19 M", "0.29 %", "1e-3", "1", "about 4,000"),
        ("StyleGAN-XL, ImageNet", "67.9 M³", "0.19 M³", "0.29 %³", "1e-3", "1", "about 4,000"),
        ("Stable Diffusion 1.5, one step", "943.2 M", "1.59 M", "0.17 %", "1e-4", "4", "about 15,000"),
        ("Stable Diffusion 2.1, many steps", "943.2 M⁴", "1.59 M⁴", "0.17 %", "1e-4", "4", "about 30,000"),
    ),
    "Table 5",
)

FID = Published(
    ("", "FID"),
    (("VQGAN, FFHQ", "9.6"), ("StyleGAN2, FFHQ", "3.62"), ("StyleGAN-XL, FFHQ", "2.19")),
    "section 4.2",
    "The paper's Figure 5 plots the accuracy of intrinsics against such qualities; its values were not at hand.",
)

SHARES = Published(
    ("Stable Diffusion 1.5", "rank 2", "rank 8"),
    (("share of the weights", "0.04 %", "0.17 %"),),
    "abstract, Table 5",
    "The paper's plot of error by rank was not at hand.",
)

ERRORS = (
    "¹ VQGAN's 0.18 % is counted on the first stage alone (131,072 of 72,141,699); of the whole 873,940,099 it is 0.015 %.",
    "² Table 2 says 0.76 % for StyleGAN2 on LSUN bedroom, Table 5 and appendix B.1 0.57 %; the network gives 0.571 %.",
    "³ The row of ImageNet repeats FFHQ's numbers. That network has 166,267,046 parameters, its adapter 342,528 (0.21 %).",
    "⁴ The row of the many-step model repeats SD 1.5's numbers. SD 2.1 has 949,564,587 (UNet and VAE), the adapter 1,659,904.",
)
