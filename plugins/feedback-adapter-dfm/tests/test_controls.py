"""Networks that start from their trained control look as it does until their feedback learns."""

import pytest
import torch
from safetensors.torch import save_file

from fa_dfm import Known

camvid_nets = pytest.importorskip("camvid_nets")
cifar10_task = pytest.importorskip("cifar10_task")


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """A `feedforward` for street scenes whose evidence counts, and the file of its weights."""
    net = camvid_nets.METHODS["feedforward"].make(0, None).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = net.feedback.maps.weight
        weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    file = tmp_path_factory.mktemp("control") / "control.safetensors"
    save_file(net.state_dict(), file)
    return net, file


@pytest.fixture(scope="module")
def scene():
    """Two images, and known pixels of them, surely and less surely known."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *camvid_nets.SIZE, generator=generator)
    labels = torch.randint(camvid_nets.CLASSES, (2, *camvid_nets.SIZE), generator=generator)
    told = torch.rand(labels.shape, generator=generator) < 0.05
    return images, Known.from_mask(torch.where(told, labels, -1), camvid_nets.CLASSES)


@torch.no_grad()
@pytest.mark.parametrize("evidence", [False, True])
def test_every_look_of_a_new_loop_is_its_controls(control, scene, evidence):
    net, file = control
    images, known = scene
    known = known if evidence else None
    loop = camvid_nets.METHODS["loop"].make(3, None, file).eval()
    expected = net(images, known)
    for logits in loop.unroll(images, known, 3).logits:
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loop(images, known), loop.unroll(images, known, cut=True).logits[-1])
    assert (expected - net(images)).abs().max() > 1e-2 or not evidence


@torch.no_grad()
def test_a_deeper_head_starts_near_its_control(control, scene):
    net, file = control
    images, known = scene
    deep = camvid_nets.METHODS["untied"].make(3, None, file).eval()
    apart = (deep(images, known) - net(images, known)).abs().mean()
    assert 0 < apart < 0.2 * net(images, known).std()


@torch.no_grad()
def test_a_u_net_around_its_control_starts_as_it(control, scene):
    net, file = control
    images, known = scene
    unet = camvid_nets.METHODS["unet around the control"].make(3, None, file).eval()
    torch.testing.assert_close(unet(images, known), net(images, known), atol=1e-4, rtol=1e-4)
    unet.model.head.join.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert (unet(images, known) - net(images, known)).abs().max() > 0.1, "later stages count"


@torch.no_grad()
@pytest.mark.parametrize("method", ["loop", "feedforward", "untied"])
def test_networks_for_photos_start_at_or_near_their_control(tmp_path, method):
    net = cifar10_task._make(cifar10_task.METHODS["feedforward"], 0, None).eval()
    file = tmp_path / "control.safetensors"
    save_file(net.state_dict(), file)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = cifar10_task._make(cifar10_task.METHODS[method], 1, file).eval()
    expected, found = net(images), other(images)
    if method == "untied":
        assert (found - expected).abs().mean() < 0.2 * expected.std()
    else:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
