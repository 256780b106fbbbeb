"""Renders the frozen path-traced pictures by which the labelers are judged: 24 scenes, each under two lights.

    python -m venv mi && mi/bin/pip install mitsuba numpy          # a venv of its own: ilora does not need Mitsuba
    mi/bin/python plugins/ilora-paradigms/tests/make_path_traced.py --out path_traced.npz

Rooms, corners and tables with spheres, boxes and cylinders, painted plainly or with checks, stripes or blots, a third of
the objects of plastic; lamps, windows and skies; light paths of up to 7 segments, so that walls light one another.

    picture   the scene as it is, exposed, clipped, sRGB, 8 bits
    albedo    the diffuse reflectance of each pixel (Mitsuba's own AOV), the same under both lights
    shading   (the scene with every plastic made matt) / albedo, grey; neighbours of like normal, depth and shading averaged
    valid     False on lamps and on the sky

All of it is drawn from the scene's number; nothing of ilora is imported. Mitsuba 3: https://mitsuba-renderer.org.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import drjit as dr
import mitsuba as mi
import numpy as np

SCENES, SIZE = 24, 64
KINDS = ("room", "corner", "table")
DEPTH = 7


def colour(rng: np.random.Generator) -> np.ndarray:
    """A linear reflectance; most are muted."""
    level = np.exp(rng.normal(-1.0, 0.6))
    return np.clip(level * np.exp(rng.normal(0, 0.3 * rng.random(), 3)), 0.03, 0.85)


def texture(rng: np.random.Generator) -> dict:
    """Plain, checks, stripes or blots of two colours."""
    first, second = colour(rng), colour(rng)
    kind = rng.choice(["plain", "plain", "checks", "stripes", "blots"])
    if kind == "plain":
        return {"type": "rgb", "value": first.tolist()}
    n = 256
    y, x = np.mgrid[:n, :n] / n
    repeats = int(rng.integers(2, 9))
    if kind == "checks":
        mask = ((x * repeats).astype(int) + (y * repeats).astype(int)) % 2
    elif kind == "stripes":
        mask = ((x if rng.random() < 0.5 else y) * repeats * 2 % 1 < rng.uniform(0.2, 0.8)).astype(int)
    else:
        mask = blots(rng, n) > rng.uniform(-0.3, 0.3)
    picture = np.where(mask[..., None] > 0, first, second).astype(np.float32)
    bitmap = mi.Bitmap(picture)
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "filter_type": "bilinear"}


def blots(rng: np.random.Generator, n: int) -> np.ndarray:
    """1/f noise by its spectrum, of deviation 1."""
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    f[0, 0] = np.inf
    field = np.fft.ifft2(np.exp(2j * np.pi * rng.random((n, n))) / f**1.5).real
    return field / field.std()


def surface(rng: np.random.Generator, *, plastic: bool, matt: bool) -> dict:
    """A BSDF; `matt` keeps the paint and drops the gloss. The random draws do not depend on `matt`."""
    paint, rough = texture(rng), rng.uniform(0.05, 0.3)
    if not plastic or matt:
        return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": paint}}
    return {"type": "roughplastic", "diffuse_reflectance": paint, "alpha": rough, "distribution": "ggx"}


def thing(rng: np.random.Generator, at: np.ndarray, *, matt: bool) -> dict:
    """A sphere, box or cylinder that stands on y = 0 at (x, z)."""
    transform = mi.ScalarTransform4f
    size, turn = rng.uniform(0.15, 0.55), rng.uniform(0, 360)
    tall = rng.uniform(0.5, 2.2)
    kind, plastic = rng.choice(["sphere", "cube", "cylinder"]), rng.random() < 0.33
    bsdf = surface(rng, plastic=plastic, matt=matt)
    if kind == "sphere":
        return {"type": "sphere", "center": [at[0], size, at[1]], "radius": size, "bsdf": bsdf}
    if kind == "cube":
        place = transform().translate([at[0], size * tall, at[1]]).rotate([0, 1, 0], turn)
        return {"type": "cube", "to_world": place.scale([size, size * tall, size * 0.8]), "bsdf": bsdf}
    bottom, top = [at[0], 0, at[1]], [at[0], 2 * size * tall, at[1]]
    return {"type": "cylinder", "p0": bottom, "p1": top, "radius": size * 0.7, "bsdf": _both(bsdf)}


def _both(bsdf: dict) -> dict:
    return bsdf if bsdf["type"] == "twosided" else {"type": "twosided", "bsdf": bsdf}


def wall(rng: np.random.Generator, centre: list, towards: list, half: tuple[float, float], *, matt: bool) -> dict:
    """A rectangle of these half sides that faces `towards`."""
    up = [0, 1, 0] if abs(towards[1]) < 0.9 else [0, 0, 1]
    target = [c + t for c, t in zip(centre, towards, strict=True)]
    place = mi.ScalarTransform4f().look_at(origin=centre, target=target, up=up).scale([half[0], half[1], 1])
    return {"type": "rectangle", "to_world": place, "bsdf": surface(rng, plastic=False, matt=matt)}


def lamp(centre: list, towards: list, half: float, power: np.ndarray) -> dict:
    up = [0, 1, 0] if abs(towards[1]) < 0.9 else [0, 0, 1]
    target = [c + t for c, t in zip(centre, towards, strict=True)]
    place = mi.ScalarTransform4f().look_at(origin=centre, target=target, up=up).scale([half, half, 1])
    light = {"type": "area", "radiance": {"type": "rgb", "value": (power / half**2).tolist()}}
    return {"type": "rectangle", "to_world": place, "emitter": light}


def build(number: int, light: int, *, matt: bool) -> dict:
    """Scene `number` under light 0 or 1."""
    rng = np.random.default_rng(7000 + number)
    kind = KINDS[number % 3] if number % 2 else "room"
    width, deep, high = rng.uniform(1.6, 3.2), rng.uniform(1.8, 3.5), rng.uniform(2.2, 3.4)
    scene: dict = {"type": "scene"}
    scene["floor"] = wall(
        rng, [0, 0, 0], [0, 1, 0], (6 if kind == "table" else width, 6 if kind == "table" else deep), matt=matt
    )
    if kind != "table":
        scene["back"] = wall(rng, [0, high / 2, -deep], [0, 0, 1], (width, high / 2), matt=matt)
        scene["left"] = wall(rng, [-width, high / 2, 0], [1, 0, 0], (deep, high / 2), matt=matt)
    if kind == "room":
        scene["right"] = wall(rng, [width, high / 2, 0], [-1, 0, 0], (deep, high / 2), matt=matt)
        scene["front"] = wall(rng, [0, high / 2, deep], [0, 0, -1], (width, high / 2), matt=matt)
        scene["ceiling"] = wall(rng, [0, high, 0], [0, -1, 0], (width, deep), matt=matt)
    for i in range(int(rng.integers(3, 9))):
        at = np.array([rng.uniform(-0.75, 0.75) * width, rng.uniform(-0.8, 0.25) * deep])
        scene[f"thing{i}"] = thing(rng, at, matt=matt)
    eye = [rng.uniform(-0.5, 0.5) * width, rng.uniform(0.9, 1.9), deep * 0.93]
    look = [rng.uniform(-0.3, 0.3), rng.uniform(0.3, 0.9), -0.5 * deep]
    view = mi.ScalarTransform4f().look_at(origin=eye, target=look, up=[0, 1, 0])
    film = {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}, "pixel_format": "rgb"}
    scene["camera"] = {"type": "perspective", "fov": rng.uniform(50, 72), "to_world": view, "film": film}
    return scene | lights(np.random.default_rng(9000 + 2 * number + light), kind, width, deep, high)


def lights(rng: np.random.Generator, kind: str, width: float, deep: float, high: float) -> dict:
    """One lighting of a scene: one or two lamps or windows, and outside a sky."""
    tint = np.exp(rng.normal(0, 0.06, 3))
    found: dict = {}
    if kind == "room":
        x, z = rng.uniform(-0.7, 0.7) * width, rng.uniform(-0.7, 0.7) * deep
        found["lamp"] = lamp([x, high - 0.02, z], [0, -1, 0], rng.uniform(0.08, 0.5), 6 * tint)
        if rng.random() < 0.5:
            side = rng.choice([-1.0, 1.0])
            at = [side * (width - 0.02), rng.uniform(0.9, high - 0.7), rng.uniform(-0.6, 0.6) * deep]
            found["window"] = lamp(
                at, [-side, 0, 0], rng.uniform(0.3, 0.6), rng.uniform(1, 6) * np.exp(rng.normal(0, 0.1, 3))
            )
        return found
    direction = rng.normal(size=3) * [1.5, 0.5, 0.6] + [0, 1.0, 0.7]
    direction = np.abs(direction) * [np.sign(direction[0]), 1, 1] / np.linalg.norm(direction)
    centre = (5 * direction).tolist()
    found["lamp"] = lamp(centre, (-direction).tolist(), rng.uniform(0.1, 1.2), 60 * tint)
    sky = rng.uniform(0.15, 1.2) * np.exp(rng.normal(0, 0.06, 3))
    found["sky"] = {"type": "constant", "radiance": {"type": "rgb", "value": sky.tolist()}}
    return found


def rendered(scene: dict, integrator: dict, spp: int, seed: int) -> np.ndarray:
    """(SIZE,SIZE,C) float32."""
    return np.array(mi.render(mi.load_dict(scene), integrator=mi.load_dict(integrator), spp=spp, seed=seed))


def trace(number: int, light: int, spp: int) -> dict[str, np.ndarray]:
    """Picture, albedo, shading and valid of one scene under one light."""
    path = {"type": "path", "max_depth": DEPTH}
    glossy, matt = build(number, light, matt=False), build(number, light, matt=True)
    seed = 2 * number + light
    seen = rendered(glossy, path, spp, seed)[..., :3]
    flat = rendered(matt, path, spp, seed + 1000)[..., :3]
    guides = rendered(matt, {"type": "aov", "aovs": "a:albedo,n:sh_normal,d:depth"}, 64, seed + 2000)
    albedo, normal, depth = guides[..., -7:-4], guides[..., -4:-1], guides[..., -1:]
    glow = rendered(matt, {"type": "path", "max_depth": 1}, 64, seed + 3000)[..., :3].max(-1)
    valid = (glow <= 0) & (albedo.min(-1) > 0.02) & (depth[..., 0] > 0)
    shading = (flat / np.maximum(albedo, 0.02)).mean(-1)
    return {
        "picture": exposed(seen, np.random.default_rng(5000 + seed)),
        "albedo": albedo,
        "shading": smoothed(shading, normal, depth[..., 0], albedo),
        "valid": valid,
    }


def exposed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 sRGB: the 98th percentile of the brightest channel comes near white."""
    white = np.quantile(light.max(-1), 0.98) * rng.uniform(0.8, 1.2)
    return np.round(255 * encode(np.clip(light / white, 0, 1))).astype(np.uint8)


def encode(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def smoothed(shading: np.ndarray, normal: np.ndarray, depth: np.ndarray, albedo: np.ndarray) -> np.ndarray:
    """A cross-bilateral mean over 5×5 pixels: like normal, depth, paint and (within 15 %) shading count."""
    light = np.log(np.maximum(shading, 1e-3))
    total, weights = np.zeros_like(light), np.zeros_like(light)
    for down in range(-2, 3):
        for right in range(-2, 3):
            near = [np.roll(x, (down, right), (0, 1)) for x in (light, normal, depth, albedo)]
            inside = np.roll(np.pad(np.ones((SIZE - 4, SIZE - 4)), 2), (down, right), (0, 1)) if down or right else 1
            off = ((near[0] - light) / 0.15) ** 2 + ((near[1] - normal) ** 2).sum(-1) / 0.02
            off = (
                off
                + ((near[2] - depth) / (0.1 * np.maximum(depth, 0.1))) ** 2
                + ((near[3] - albedo) ** 2).sum(-1) / 0.02
            )
            weight = np.exp(-0.5 * off - (down**2 + right**2) / 4) * (inside if down or right else 1)
            total, weights = total + weight * near[0], weights + weight
    return np.exp(total / weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--spp", type=int, default=192)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    mi.set_variant("scalar_rgb")
    dr.set_thread_count(args.threads)
    rows = []
    for number in range(args.scenes):
        rows += [trace(number, light, args.spp) for light in (0, 1)]
        print(f"scene {number + 1} of {args.scenes}", flush=True)
    albedo = np.stack([(a["albedo"] + b["albedo"]) / 2 for a, b in zip(rows[::2], rows[1::2], strict=True)])
    shading = np.stack([row["shading"] / np.quantile(row["shading"][row["valid"]], 0.99) for row in rows])
    np.savez_compressed(
        args.out,
        picture=np.stack([row["picture"] for row in rows]),
        albedo=np.round(255 * encode(np.clip(albedo, 0, 1))).astype(np.uint8),
        shading=np.minimum(shading, 60).astype(np.float16),
        valid=np.stack([row["valid"] for row in rows]),
        spp=args.spp,
        mitsuba=mi.__version__,
    )


if __name__ == "__main__":
    main()
