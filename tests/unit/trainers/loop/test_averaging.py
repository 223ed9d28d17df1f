import copy

import torch
from torch import nn

from trainers.loop.averaging import Average


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def changed(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for each in (*model.parameters(), *model.buffers()):
            each.copy_(torch.randint(100, each.shape))


def test_the_average_is_that_of_the_formula() -> None:
    model = network()
    average = Average(model, 0.3)
    expected = {name: each.double() for name, each in model.named_parameters()}
    for step in range(9):
        changed(model, step)
        average.update()
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, then 0.3
        for name, each in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * each.double()
    assert average.updates == 9
    for name, each in average.model.named_parameters():
        torch.testing.assert_close(each, expected[name].float(), rtol=1e-5, atol=0.0)
        assert not each.requires_grad
    for mine, theirs in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_network_itself_is_only_read() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    average = Average(model, 0.9)
    changed(average.model, 1)
    average.update()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(each.requires_grad for each in model.parameters())
