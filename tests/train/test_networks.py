import pytest
import torch
from torch import nn

from onnx_analog.train.networks import NETWORKS, Padding, parameters

# Isik et al. 2020, appendix B: 431 k (Table 3), 89.6 k (Table 4), 11.2 M and 0.27 M parameters; He et al. 2016: 0.27 M
COUNTS = {"lenet": 431_080, "mlp": 89_610, "resnet18": 11_173_962, "resnet20": 272_474, "resnet20-padded": 269_722}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_parameters_of_the_paper(name):
    assert parameters(NETWORKS[name]()) == COUNTS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_ten_logits_for_each_image(name):
    shape = (2, 1, 28, 28) if name in ("lenet", "mlp") else (2, 3, 32, 32)
    net = NETWORKS[name]().eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, alone = net(x), net(x[:1])
    assert both.shape == (2, 10)
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)  # images do not see each other


def test_shortcuts_pad_channels_with_zeros():
    x = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    found = Padding(3, 2)(x)
    assert torch.equal(found[:, 1:4], x[:, :, ::2, ::2])
    assert found.shape == (2, 6, 2, 2)
    assert not found[:, [0, 4, 5]].any()


def test_residual_networks_are_as_deep_as_they_are_called():
    for name, depth in (("resnet18", 18), ("resnet20", 20), ("resnet20-padded", 20)):
        layers = [m for m in NETWORKS[name]().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert sum(getattr(m, "kernel_size", (3,)) != (1, 1) for m in layers) == depth
