"""`--vary` as text, and the grid it makes."""

from __future__ import annotations

import pytest

from ilora_cli.vary import flatten, parse_axis, split_values
from ilora_core.errors import ConfigError
from ilora_core.sweep import Axis, Choice, Sweep


def choices(text):
    return {choice.label: dict(choice.settings) for choice in parse_axis(text).choices}


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("adapter.rank=1,2", "adapter.rank", {"1": {"adapter.rank": 1}, "2": {"adapter.rank": 2}}),
        ("rank=1", "adapter.rank", {"1": {"adapter.rank": 1}}),
        ("seed=0,1", "train.seed", {"0": {"train.seed": 0}, "1": {"train.seed": 1}}),
        ("lr=1e-4, 3e-4", "train.lr", {"1e-4": {"train.lr": 1e-4}, "3e-4": {"train.lr": 3e-4}}),
        ("limit=16,all:=0", "limit", {"16": {"limit": 16}, "all": {"limit": 0}}),
        ("preset=none,paper-sd15", "preset", {"none": {"preset": "none"}, "paper-sd15": {"preset": "paper-sd15"}}),
        (
            "generator.timestep=none,300",
            "generator.timestep",
            {"none": {"generator.timestep": None}, "300": {"generator.timestep": 300}},
        ),
        ("labeler=a+b,a", "labeler", {"a+b": {"labeler": "a+b"}, "a": {"labeler": "a"}}),
        (
            "intrinsic.loss=mse,cosine+l1",
            "intrinsic.loss",
            {"mse": {"intrinsic.loss": "mse"}, "cosine+l1": {"intrinsic.loss": "cosine+l1"}},
        ),
        (
            "runtime.compile=true,false",
            "runtime.compile",
            {"true": {"runtime.compile": True}, "false": {"runtime.compile": False}},
        ),
        (
            "adapter.targets=self:=.*attn1.*,cross:=.*attn2.*",
            "adapter.targets",
            {"self": {"adapter.targets": ".*attn1.*"}, "cross": {"adapter.targets": ".*attn2.*"}},
        ),
        (
            r"adapter.targets=up:=up_blocks.*\.(to_q|to_k),few:=a{1,2}",
            "adapter.targets",
            {"up": {"adapter.targets": r"up_blocks.*\.(to_q|to_k)"}, "few": {"adapter.targets": "a{1,2}"}},
        ),
        (
            "adapter.targets=['to_q','to_k'],v only:=['to_v']",
            "adapter.targets",
            {"['to_q','to_k']": {"adapter.targets": ["to_q", "to_k"]}, "v only": {"adapter.targets": ["to_v"]}},
        ),
        ("adapter.targets='[ab],c'", "adapter.targets", {"'[ab],c'": {"adapter.targets": "[ab],c"}}),
        ("adapter.targets=(?:=x)", "adapter.targets", {"(?:=x)": {"adapter.targets": "(?:=x)"}}),
        (
            "way=lora:={adapter='lora', lr=5e-3},full:={adapter='full', train.lr=5e-4, generator.a-b=1}",
            "way",
            {
                "lora": {"adapter": "lora", "train.lr": 5e-3},
                "full": {"adapter": "full", "train.lr": 5e-4, "generator.a_b": 1},
            },
        ),
    ],
)
def test_axes_are_read(text, name, expected):
    assert parse_axis(text).name == name
    assert choices(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank", "not of the form KEY=VALUE"),
        ("=1,2", "not of the form KEY=VALUE"),
        ("rank=", "a value is empty"),
        ("rank=1,,2", "a value is empty"),
        ("rank=1,2,1", "has '1' twice"),
        ("lr=1e-4,0.0001", "has '0.0001' twice"),
        ("limit=a:=1,a:=2", "has 'a' twice"),
        ("adpater=lora,full", "no setting 'adpater'. Did you mean adapter"),
        ("train.step=1,2", "Did you mean train.steps"),
        ("trian.steps=1", "Did you mean train.steps"),
        ("way={rank=1}", r"say how \{rank=1\} is called"),
        ("way=a:={rnak=1}", "no setting 'rnak'"),
        ("way=a:={}", "sets nothing"),
        ("adapter.targets=[to_q, to_k]", r"cannot read \[to_q, to_k\]"),
        ("adapter.targets=(a,b", r"\) is missing"),
        ("adapter.targets='a,b", "' is missing"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_axis(text)


def test_splitting_keeps_brackets_quotes_and_hidden_signs_together():
    assert list(split_values(r"a\(,b[,],{x='}',y=1},'it,''s'")) == [r"a\(", "b[,]", "{x='}',y=1}", "'it,''s'"]


def test_settings_are_written_flat():
    assert flatten({"labeler": {"a": {"x": 1}, "mix": "mean"}, "limit": 3}) == {
        "labeler.a.x": 1,
        "labeler.mix": "mean",
        "limit": 3,
    }


def test_the_grid_has_every_combination_the_last_axis_fastest():
    sweep = Sweep(
        {"generator": "g", "adapter.rank": 2}, (Axis.of("adapter.rank", (1, 2)), Axis.of("train.seed", (0, 1, 2)))
    )
    points = list(sweep.points())
    assert [str(point) for point in points] == [f"adapter.rank={r}, train.seed={s}" for r in (1, 2) for s in (0, 1, 2)]
    assert points[4].settings == {"generator": "g", "adapter.rank": 2, "train.seed": 1}
    assert [axis.name for axis in sweep.compared] == ["adapter.rank"]
    assert sweep.reference == {"adapter.rank": "2", "train.seed": "0"}


def test_choices_of_several_settings_replace_only_their_own():
    ways = Axis("way", (Choice("a", {"source": "x"}), Choice("b", {"pairs": "y", "train.lr": 1.0})))
    assert [point.settings for point in Sweep({"limit": 3}, (ways,)).points()] == [
        {"limit": 3, "source": "x"},
        {"limit": 3, "pairs": "y", "train.lr": 1.0},
    ]


@pytest.mark.parametrize(
    ("base", "axes", "message"),
    [
        ({"adapter.rank": 3}, (Axis.of("adapter.rank", (1, 2)),), "given as 3 and varied as 1, 2"),
        ({}, (Axis.of("limit", (1, 2)), Axis.of("limit", (3, 4))), "limit is varied twice"),
        ({}, (Axis("way", (Choice("a", {"limit": 1}),)), Axis.of("limit", (3, 4))), "limit is varied twice"),
        ({"train.stpes": 3}, (), "no setting 'train.stpes'"),
    ],
)
def test_contradictions_are_refused(base, axes, message):
    with pytest.raises(ConfigError, match=message):
        Sweep(base, axes)


def test_an_axis_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no values"):
        Axis("limit", ())
