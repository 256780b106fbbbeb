"""The network against the official classes' answers, and its full size."""

import pytest
import torch

from ilora_omnidata.network import FULL, TINY, DPTHybrid
from ilora_omnidata.pictures import TASKS
from ilora_omnidata.weights import empty_network

CLOSE = 1e-5


@torch.no_grad()
@pytest.mark.parametrize("size", ["64x64", "64x96", "96x32"])
@pytest.mark.parametrize("task", ["normal", "depth"])
def test_answers_are_the_official_ones(oracle, task, size):
    net = DPTHybrid(TASKS[task].channels, TINY)
    net.load_state_dict(oracle.states[task], strict=True)
    wanted = oracle.arrays[f"{task}_{size}"]
    answers = net.eval()(TASKS[task].normalise(oracle.arrays[f"input01_{size}"]))
    assert wanted.std() > 0.01
    assert (answers - wanted.reshape(answers.shape)).abs().max() < CLOSE


@pytest.mark.parametrize(("task", "parameters"), [("normal", 123_147_051), ("depth", 123_146_985)])
def test_the_full_network_has_the_published_counts(task, parameters):
    net = empty_network(TASKS[task])
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == 368
    assert net.widths == FULL


@torch.no_grad()
def test_the_full_network_runs_on_the_cpu():
    net = empty_network(TASKS["normal"]).to_empty(device="cpu").eval()
    draws = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.normal_(std=0.02, generator=draws)
    answers = net(torch.rand(1, 3, 64, 96, generator=draws))
    assert answers.shape == (1, 3, 64, 96)
    assert torch.isfinite(answers).all()


def test_other_sides_than_multiples_of_32_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        DPTHybrid(1, TINY)(torch.zeros(1, 3, 48, 64))
