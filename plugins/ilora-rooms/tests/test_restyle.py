"""Restyled rooms: the same geometry, other colours and light, and a caption that says so."""

import itertools

import numpy as np
import torch

from ilora_rooms.captions import vocabulary
from ilora_rooms.data import Pictures, write_shard
from ilora_rooms.looks import STANDARD_COLOURS
from ilora_rooms.render import render_scenes
from ilora_rooms.restyle import restyle
from ilora_rooms.scene import build_scene

SEEDS = range(6)


def test_geometry_stays_to_the_bit_and_the_picture_does_not():
    specs = [build_scene(seed) for seed in SEEDS]
    before = render_scenes(specs, size=24)
    after = render_scenes([restyle(spec, 1, seed=seed) for seed, spec in zip(SEEDS, specs, strict=True)], size=24)
    for name in ("normals", "depth", "valid"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    apart = (before.picture - after.picture).abs().mean((1, 2, 3))
    assert apart.min() > 0.03
    assert (before.albedo - after.albedo).abs().mean((1, 2, 3)).min() > 0.02


def test_it_follows_from_seed_and_variant():
    spec = build_scene(3)
    first, again, other = (restyle(spec, v, seed=3) for v in (1, 1, 2))
    assert first.caption == again.caption
    assert all(np.array_equal(a.colours, b.colours) for a, b in zip(first.materials, again.materials, strict=True))
    assert any(not np.array_equal(a.colours, b.colours) for a, b in zip(first.materials, other.materials, strict=True))
    assert first.exposure == again.exposure != other.exposure


def test_the_scene_that_was_given_is_not_touched():
    spec, fresh = build_scene(5), build_scene(5)
    restyle(spec, 1, seed=5)
    assert spec.caption == fresh.caption
    assert spec.exposure == fresh.exposure
    assert all(np.array_equal(a.colours, b.colours) for a, b in zip(spec.materials, fresh.materials, strict=True))


def test_captions_change_colours_alone_and_stay_in_the_vocabulary():
    known = set(vocabulary())
    for seed in range(20):
        spec = build_scene(seed)
        old, new = (
            spec.caption.replace(",", " ,").split(),
            restyle(spec, 1, seed=seed).caption.replace(",", " ,").split(),
        )
        assert len(old) == len(new)
        for a, b in zip(old, new, strict=True):
            assert b in known
            assert a == b or a in STANDARD_COLOURS or a in ("a", "an")
        for article, word in itertools.pairwise(new):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou")


def test_a_colour_goes_where_its_name_goes():
    """Two things of one colour word have one colour word afterwards, and two of different words different ones."""
    places: dict[str, str] = {}
    spec = build_scene(4)
    for a, b in zip(spec.caption.split(), restyle(spec, 1, seed=4).caption.split(), strict=True):
        if a.strip(",") in STANDARD_COLOURS:
            assert places.setdefault(a.strip(","), b.strip(",")) == b.strip(",")
    assert len(set(places.values())) == len(places)


def test_shards_of_styles_stand_beside_plain_ones(tmp_path):
    write_shard(tmp_path, 0, size=16, count=6, styles=3)
    write_shard(tmp_path, 0, size=16, count=2)
    styles, plain = Pictures(tmp_path, styles=3), Pictures(tmp_path)
    assert styles.rescan()
    assert plain.rescan()
    assert (len(styles), len(plain)) == (6, 2)
    assert torch.equal(styles.pictures[[0, 3]], plain.pictures)
    assert [styles.captions[0], styles.captions[3]] == plain.captions
