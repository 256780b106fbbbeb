"""The conformance kit catches what it is for: each planted fault fails its check, the sound one passes."""

import math
from dataclasses import replace

import pytest
import torch

from ilora_core.cards import Card
from ilora_core.errors import PluginError
from ilora_core.intrinsics import DEPTH, NORMALS
from ilora_core.noise import mix_seeds, noise_like
from ilora_core.plugins import load_plugins
from ilora_core.testing import adapter_checks as adapters
from ilora_core.testing import (
    checks,
    generator_checks,
    generator_fit_checks,
    labeler_checks,
    metric_checks,
    source_checks,
)
from ilora_core.testing.cases import Case, CheckFailed, Skipped, Subject, find_cases, run_case
from ilora_core.testing.scenes import axis_correlations, make_scenes
from ilora_core.testing.watch import no_network


class Sound:
    """A generator without a fault: two linear layers and a reshape."""

    targets = ("0", "2")
    resolution = (16, 16)
    stride = 1
    takes_weights = True

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = (torch.nn.Linear(4, 8), torch.nn.SiLU(), torch.nn.Linear(8, 12), torch.nn.Unflatten(1, (3, 2, 2)))
            self.net = torch.nn.Sequential(*layers, torch.nn.Upsample(self.resolution)).eval().requires_grad_(False)

    def sample(self, n, *, seed):
        return {"z": noise_like(torch.empty(n, 4), [mix_seeds(seed, i) for i in range(n)])}

    def encode(self, pictures):
        return {"z": pictures.mean((2, 3)).repeat(1, 2)[:, :4]}

    def picture(self, codes):
        from ilora_core.adapters import bare

        with torch.no_grad(), bare(self.net):
            return self.draw(codes)

    def render(self, codes, intrinsic):
        with torch.no_grad():
            return self.draw(codes)

    def render_many(self, codes, intrinsics):
        with torch.no_grad():
            return self.draw({"z": codes["z"].repeat(len(intrinsics), 1)}).chunk(len(intrinsics))

    def prepare(self, codes, intrinsic, target, valid):
        return {"target": target, "valid": valid}

    def loss(self, codes, intrinsic):
        error = (self.draw(codes) - codes["target"]).square() * codes["valid"]
        return error.sum((1, 2, 3)) / codes["valid"].sum((1, 2, 3)).clamp(min=1)

    def to(self, device):
        return self

    def park(self):
        pass

    def layouts(self, state, config):
        return {}

    def draw(self, codes):
        return torch.sigmoid(self.net(codes["z"]))


def subject(build, kind="generator"):
    return Subject(kind, "test", __name__, build=build)


ALL_GENERATOR = [getattr(m, n) for m in (generator_checks, generator_fit_checks) for n in m.__all__]


@pytest.mark.parametrize("check", ALL_GENERATOR, ids=lambda check: check.__name__)
def test_a_sound_generator_passes(check):
    if check is generator_checks.check_encodes:
        pytest.skip("its resolution is fixed")
    check(subject(Sound))


class WrongRange(Sound):
    def draw(self, codes):
        return self.net(codes["z"]).tanh()


class LeakyGradient(Sound):
    def __init__(self):
        super().__init__()
        self.extra = torch.nn.Parameter(torch.ones(1))
        self.head = torch.nn.Linear(1, 1)

    def draw(self, codes):
        return super().draw(codes) * self.head(self.extra).sigmoid()


class GlobalRandom(Sound):
    def sample(self, n, *, seed):
        return {"z": torch.randn(n, 4)}


class PrefixDepends(Sound):
    def sample(self, n, *, seed):
        return {"z": torch.randn(4, n, generator=torch.Generator().manual_seed(seed)).T}


class BatchMean(Sound):
    def draw(self, codes):
        drawn = super().draw(codes)
        return drawn - drawn.mean(0) + 0.5


class MaskIgnored(Sound):
    def loss(self, codes, intrinsic):
        return (self.draw(codes) - codes["target"]).square().mean((1, 2, 3))


class WeightsRounded(Sound):
    def prepare(self, codes, intrinsic, target, valid):
        return {"target": target, "valid": valid > 0}


class WeightsUnnormalised(Sound):
    def loss(self, codes, intrinsic):
        return ((self.draw(codes) - codes["target"]).square() * codes["valid"]).mean((1, 2, 3))


class AdapterSleeps(Sound):
    def render(self, codes, intrinsic):
        return self.picture(codes)


class PictureMoves(Sound):
    def picture(self, codes):
        return self.render(codes, NORMALS)


class ScalarLoss(Sound):
    def loss(self, codes, intrinsic):
        return super().loss(codes, intrinsic).mean()


class NanWhereEmpty(Sound):
    def loss(self, codes, intrinsic):
        error = (self.draw(codes) - codes["target"]).square() * codes["valid"]
        return error.sum((1, 2, 3)) / codes["valid"].sum((1, 2, 3))


class Trainable(Sound):
    def __init__(self):
        super().__init__()
        self.net.requires_grad_(True)


class NoTargets(Sound):
    targets = ("not_there",)


class HalfPrecision(Sound):
    def render(self, codes, intrinsic):
        return super().render(codes, intrinsic).half()


class RandomWeights(Sound):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.net[0].weight.copy_(torch.randn(8, 4))


class DeafLoss(Sound):
    def loss(self, codes, intrinsic):
        return super().loss({**codes, "target": torch.zeros_like(codes["target"])}, intrinsic)


class Detached(Sound):
    def loss(self, codes, intrinsic):
        with torch.no_grad():
            return super().loss(codes, intrinsic)


class RowsInterleaved(Sound):
    def render_many(self, codes, intrinsics):
        with torch.no_grad():
            drawn = self.draw({"z": codes["z"].repeat_interleave(len(intrinsics), 0)})
        return [drawn[number :: len(intrinsics)] for number in range(len(intrinsics))]


class OneMapForAll(Sound):
    def render_many(self, codes, intrinsics):
        return [self.render(codes, intrinsic) for intrinsic in intrinsics]


FAULTS = {
    WrongRange: generator_checks.check_pictures_in_range,
    LeakyGradient: generator_fit_checks.check_gradient_reaches_adapter_only,
    GlobalRandom: generator_checks.check_same_seed_same_codes,
    PrefixDepends: generator_checks.check_prefix_of_samples,
    BatchMean: generator_checks.check_batch_of_two_is_two_of_one,
    MaskIgnored: generator_fit_checks.check_masked_pixels_do_not_matter,
    DeafLoss: generator_fit_checks.check_masked_pixels_do_not_matter,
    WeightsRounded: generator_fit_checks.check_weights_count,
    WeightsUnnormalised: generator_fit_checks.check_weights_count,
    AdapterSleeps: generator_fit_checks.check_disabled_restores,
    PictureMoves: generator_fit_checks.check_disabled_restores,
    ScalarLoss: generator_fit_checks.check_loss_is_finite_per_sample,
    NanWhereEmpty: generator_fit_checks.check_loss_is_finite_per_sample,
    RowsInterleaved: generator_checks.check_renders_many_as_one_by_one,
    OneMapForAll: generator_checks.check_renders_many_as_one_by_one,
    Trainable: generator_checks.check_net_is_frozen,
    NoTargets: generator_fit_checks.check_targets_match,
    HalfPrecision: generator_checks.check_shapes,
    RandomWeights: generator_fit_checks.check_save_and_load_is_exact,
    Detached: generator_fit_checks.check_steps_lower_the_loss,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faulty_generator_fails(fault):
    outcome = run_case(Case(subject(fault), FAULTS[fault]))
    assert outcome.status == "failed"
    assert outcome.reason


def test_a_generator_that_promises_no_weights_is_not_asked():
    class Plain(Sound):
        takes_weights = False

    outcome = run_case(Case(subject(Plain), generator_fit_checks.check_weights_count))
    assert (outcome.status, "takes_weights" in outcome.reason) == ("skipped", True)


def test_a_generator_without_render_many_is_not_asked():
    class Plain(Sound):
        render_many = property()  # hasattr says no

    outcome = run_case(Case(subject(Plain), generator_checks.check_renders_many_as_one_by_one))
    assert (outcome.status, "render_many" in outcome.reason) == ("skipped", True)


def test_protocol_names_what_is_missing():
    class Bare:
        net = torch.nn.Identity()

    with pytest.raises(CheckFailed, match=r"encode.*park.*stride"):
        generator_checks.check_follows_protocol(subject(Bare))


# --- labelers -------------------------------------------------------------------------------------------------------


class Honest:
    """A labeler of normals and affine disparity whose network follows OpenGL and says near = 1."""

    intrinsics = (NORMALS, replace(DEPTH, kind="affine_disparity", unit="relative"))
    frame = (1, -1, -1)
    sign = 1

    def imitate(self, maps):
        x, y, z = maps["normals"].unbind(1)
        self.truth = torch.stack([x, -y, -z], 1), 1 / maps["depth"]

    def label(self, pictures):
        if hasattr(self, "truth"):
            raw, near = self.truth
        else:
            raw = torch.cat([pictures[:, :2] - 0.5, torch.ones_like(pictures[:, :1])], 1)
            near = pictures.mean(1, keepdim=True)
        raw = raw / raw.norm(dim=1, keepdim=True)
        normals = raw * torch.tensor(self.frame).view(1, 3, 1, 1)
        valid = torch.ones_like(near, dtype=torch.bool)
        return {"normals": (normals, valid), "depth": (self.sign * near, valid)}


@pytest.mark.parametrize("name", labeler_checks.__all__)
def test_an_honest_labeler_passes(name):
    getattr(labeler_checks, name)(subject(Honest, "labeler"))


@pytest.mark.parametrize(
    ("frame", "sign", "axis"),
    [((-1, -1, -1), 1, "x"), ((1, 1, -1), 1, "y"), ((1, -1, 1), 1, "z"), ((1, -1, -1), -1, "depth")],
)
def test_a_flipped_axis_fails(frame, sign, axis):
    class Flipped(Honest):
        pass

    Flipped.frame, Flipped.sign = frame, sign
    with pytest.raises(CheckFailed, match=f"{axis}.* is flipped"):
        labeler_checks.check_axes_point_our_way(subject(Flipped, "labeler"))


def test_a_labeler_without_imitate_is_skipped_with_a_reason():
    class Mute(Honest):
        imitate = property()

    with pytest.raises(Skipped, match="imitate"):
        labeler_checks.check_axes_point_our_way(subject(Mute, "labeler"))


class FloatMask(Honest):
    def label(self, pictures):
        return {name: (value, valid.float()) for name, (value, valid) in super().label(pictures).items()}


class LongNormals(Honest):
    def label(self, pictures):
        return {name: (value * 2, valid) for name, (value, valid) in super().label(pictures).items()}


class Resized(Honest):
    def label(self, pictures):
        return {n: (v[..., ::2, ::2], m[..., ::2, ::2]) for n, (v, m) in super().label(pictures).items()}


class InPlace(Honest):
    def label(self, pictures):
        return super().label(pictures.sub_(0.1))


@pytest.mark.parametrize("fault", [FloatMask, LongNormals, Resized, InPlace], ids=lambda fault: fault.__name__)
def test_faulty_labeler_fails_some_check(fault):
    cases = [Case(subject(fault, "labeler"), getattr(labeler_checks, name)) for name in labeler_checks.__all__]
    assert any(run_case(case).status == "failed" for case in cases)


# --- scenes ---------------------------------------------------------------------------------------------------------


def test_scenes_are_consistent_with_a_camera():
    """Normals from finite differences of the back-projected depth equal the analytic ones away from edges."""
    scenes = make_scenes(96, 128)
    depth, normals = scenes.maps["depth"], scenes.maps["normals"]
    v, u = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    points = torch.stack([(u - 64) / 128, (v - 48) / 128, torch.ones_like(u)]) * depth
    across = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    down = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    measured = torch.linalg.cross(down, across, dim=1)
    measured = measured / measured.norm(dim=1, keepdim=True)
    angle = torch.rad2deg(torch.acos((measured * normals[..., 1:-1, 1:-1]).sum(1).clamp(-1, 1)))
    assert angle.median() < 1.0
    assert (normals[:, 2] < 0).all()
    assert float((normals.norm(dim=1) - 1).abs().max()) < 1e-5
    assert float(scenes.pictures.min()) >= 0
    assert float(scenes.pictures.max()) <= 1


def test_axis_correlations_are_signed():
    scenes = make_scenes()
    good = axis_correlations(NORMALS, scenes.maps["normals"], scenes, scenes.valid)
    assert all(math.isclose(value, 1, abs_tol=1e-6) for value in good.values())
    flipped = axis_correlations(
        NORMALS, scenes.maps["normals"] * torch.tensor([1, -1, 1]).view(1, 3, 1, 1), scenes, scenes.valid
    )
    assert flipped["y (down)"] < -0.99
    assert axis_correlations(DEPTH, torch.ones(2, 1, 64, 64), scenes, scenes.valid) == {"depth": 0.0}


# --- sources and metrics --------------------------------------------------------------------------------------------


class Pictures:
    """A source of the analytic scenes with normals and depth."""

    intrinsics = (NORMALS, DEPTH)
    keys = ("a", "b")

    def __len__(self):
        return 2

    def __iter__(self):
        from ilora_core.protocols import Batch

        scenes = make_scenes(32, 32)
        maps = {name: (self.tell(name, scenes.maps[name]), scenes.valid) for name in ("normals", "depth")}
        yield Batch(self.keys, scenes.pictures, maps)

    def tell(self, name, value):
        return value


@pytest.mark.parametrize("name", source_checks.__all__)
def test_a_sound_source_passes(name):
    getattr(source_checks, name)(subject(Pictures, "source"))


@pytest.mark.parametrize(("signs", "axis"), [((-1, 1, 1), "x"), ((1, -1, 1), "y")])
def test_source_with_a_flipped_axis_fails(signs, axis):
    class Flipped(Pictures):
        def tell(self, name, value):
            return value * torch.tensor(signs).view(1, 3, 1, 1) if name == "normals" else value

    with pytest.raises(CheckFailed, match=f"{axis}.*flipped"):
        source_checks.check_normals_agree_with_depth(subject(Flipped, "source"))


def test_source_with_repeated_keys_fails():
    class Repeated(Pictures):
        keys = ("a", "a")

    with pytest.raises(CheckFailed, match="repeat"):
        source_checks.check_keys_are_unique_and_stable(subject(Repeated, "source"))


class Zero:
    """A metric that calls nothing valid perfect, and looks at masked pixels."""

    name, intrinsic, unit, higher_is_better = "zero", "", "", False

    def __call__(self, prediction, truth, valid):
        return (prediction - truth).abs().mean((1, 2, 3))


def test_faulty_metric_fails_both_mask_checks():
    for name in ("check_metric_respects_the_mask", "check_nan_where_nothing_is_valid"):
        with pytest.raises(CheckFailed):
            getattr(metric_checks, name)(subject(Zero, "metric"))


def test_the_core_metrics_pass():
    from ilora_core.metrics import get_metric

    for metric in ("normals_mean_deg", "depth_abs_rel@marigold-lsq", "albedo_rms", "shading_si_rms", "rms"):
        for name in metric_checks.__all__:
            getattr(metric_checks, name)(subject(lambda metric=metric: get_metric(metric), "metric"))


def test_the_core_adapter_passes():
    outcomes = [run_case(case) for case in find_cases("ilora")]
    assert [f"{o.case.id}: {o.reason}" for o in outcomes if o.status == "failed"] == []
    assert {o.case.check.__name__ for o in outcomes} >= set(adapters.__all__)


# --- checks of any kind ---------------------------------------------------------------------------------------------


def test_network_is_seen_even_when_the_error_is_swallowed():
    import contextlib
    import socket

    with no_network() as attempts, contextlib.suppress(OSError):
        socket.create_connection(("example.invalid", 80), timeout=1)
    assert attempts


def test_globals_that_change_are_named():
    class Seeds(Sound):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            torch.randn(3)

    torch.manual_seed(1)
    with pytest.raises(CheckFailed, match="torch's random state"):
        checks.check_leaves_globals_alone(subject(Seeds))


def test_backward_in_a_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "calls_backward.py").write_text("def train(loss):\n    loss.backward()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CheckFailed, match=r"calls_backward.py:2 calls .backward\("):
        checks.check_calls_no_backward(Subject("plugin", "x", "calls_backward"))


def test_scripts_that_make_shipped_weights_may_train(tmp_path, monkeypatch):
    (tmp_path / "makes_weights").mkdir()
    (tmp_path / "makes_weights" / "__init__.py").touch()
    (tmp_path / "makes_weights" / "pretrain.py").write_text("def train(loss):\n    loss.backward()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checks.check_calls_no_backward(Subject("plugin", "x", "makes_weights"))


def test_nothing_under_plugins_calls_backward():
    """Training is the trainer's; only a `pretrain*.py`, which makes weights that a plugin ships, is let off."""
    for plugin in load_plugins().plugins:
        checks.check_calls_no_backward(Subject("plugin", plugin.name, plugin.module))


def test_incomplete_card_is_named():
    card = Card("x", "", "", "a:b", "a:b")
    with pytest.raises(CheckFailed, match="summary"):
        checks.check_card_is_complete(Subject("generator", "p", "m", card))


def test_heavy_import_is_found(tmp_path, monkeypatch):
    (tmp_path / "imports_torch.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CheckFailed, match="imports torch"):
        checks.check_import_is_light(Subject("plugin", "x", "imports_torch"))


@pytest.mark.parametrize(
    ("declared", "message"),
    [({"check_import_is_light": ""}, "needs a reason"), ({"check_no_such_thing": "why not"}, "names no check")],
)
def test_known_failures_are_checked_themselves(tmp_path, monkeypatch, declared, message):
    name = f"known-{message.split()[0]}"
    module = name.replace("-", "_")
    (tmp_path / f"{module}.py").write_text(f"ILORA_KNOWN_FAILURES = {declared!r}\n")
    info = tmp_path / f"{module}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[ilora]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ILORA_PLUGINS", name)
    with pytest.raises(PluginError, match=message):
        find_cases(name)


def test_known_failures_need_to_fail():
    def passes(subject):
        pass

    def fails(subject):
        raise CheckFailed("as declared")

    it = subject(Sound)
    assert run_case(Case(it, fails, "no mask yet")).status == "skipped"
    assert "no mask yet" in run_case(Case(it, fails, "no mask yet")).reason
    assert "Remove" in run_case(Case(it, passes, "no mask yet")).reason
    assert run_case(Case(it, fails)).status == "failed"
