"""The maps of `Refinement.explain`: where a network looks, and where its change came from."""

import pytest
import timm
import torch
from captum.attr import LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import feedback_adapter as fa
from feedback_adapter.explain.where import Grid
from feedback_adapter.sites import Tail, frozen
from feedback_adapter.sites.inputs import Inputs
from feedback_adapter.testing import tiny_adapter, tiny_images, untouched

KNOWN = fa.Labels({"dog": 1, "snow": 0})


def vit():
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=(64, 96), depth=2, embed_dim=48, num_heads=3, num_classes=4
    )


def swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=24, depths=(1, 1),
        num_heads=(1, 2), num_classes=4,
    )  # fmt: skip


def adapter_of(make):
    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():  # so that a random network has opinions
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.1)
    return fa.wrap(model, labels=["cat", "dog", "snow", "ball"])


@pytest.mark.parametrize(
    ("make", "size", "pivot", "grid"),
    [
        (None, (16, 16), "stem", (8, 8)),
        (vit, (64, 96), "blocks.0", (4, 6)),
        (swin, (64, 64), "layers.0", (16, 16)),
    ],
)
def test_the_map_of_the_change_sums_to_the_change(make, size, pivot, grid):
    adapter = tiny_adapter() if make is None else adapter_of(make)
    torch.manual_seed(1)
    x = torch.randn(2, 3, *size)
    result = adapter.refine(x, KNOWN, strategy="newton", pivots=pivot, explainable=True)
    with untouched(adapter.model):
        maps = result.explain("cat", image=1).maps
    assert maps.pivot == pivot
    assert maps.before.shape == maps.refined.shape == maps.change.shape == grid
    moved = float(result.refined[1, 0] - result.before[1, 0])
    assert abs(moved) > 0.01
    assert float(maps.change.sum()) + maps.elsewhere == pytest.approx(moved, rel=2e-3, abs=1e-4)
    assert (maps.elsewhere != 0) == (make is vit)


def test_before_is_captums_grad_cam_of_the_users_model():
    adapter, x = tiny_adapter(), tiny_images(2)
    result = adapter.refine(x, KNOWN, pivots="block", explainable=True)
    maps = result.explain("ball").maps
    x.requires_grad_()
    camera = LayerGradCam(adapter.model, adapter.model.block)
    expected = camera.attribute(x, target=3, relu_attributions=False)[0, 0].detach().double()
    torch.testing.assert_close(maps.before, expected, rtol=1e-4, atol=1e-6)


def test_refined_is_gradient_times_activation_by_hand():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(2 * 16, 4))
    model = nn.Sequential(nn.Conv2d(3, 2, 4, 4), head).double()
    adapter = fa.wrap(model, labels=["cat", "dog", "snow", "ball"])
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    result = adapter.refine(x, KNOWN, strategy="residual", pivots="0", explainable=True)
    a = result.activations["0"].clone().requires_grad_()
    torch.testing.assert_close(head(a), result.refined)
    gradient = torch.autograd.grad(head(a)[0, 0], a)[0]
    maps = result.explain("cat").maps
    torch.testing.assert_close(maps.refined, (gradient * a).detach()[0].sum(0))


class Planted(nn.Module):
    """Patches in a layout, of which only the one in row 1 and column 2 counts."""

    def __init__(self, layout, extra=0):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.pivot = nn.Conv2d(3, 6, 4, 4), nn.Identity()
        self.head, self.layout, self.extra = nn.Linear(6, 4), layout, extra

    def forward(self, x):
        x = self.patches(x)
        if self.layout == "NHWC":
            return self.head(self.pivot(x.movedim(1, -1))[:, 1, 2])
        if self.layout == "NLC":
            width, x = x.shape[-1], x.flatten(2).transpose(1, 2)
            x = torch.cat([x[:, :1].expand(-1, self.extra, -1), x], 1)
            return self.head(self.pivot(x)[:, self.extra + width + 2])
        return self.head(self.pivot(x)[:, :, 1, 2])


@pytest.mark.parametrize(
    "model",
    [Planted("NCHW"), Planted("NHWC"), Planted("NLC"), Planted("NLC", 1), Planted("NLC", 5)],
)
def test_every_layout_has_its_places_where_they_are(model):
    adapter = fa.wrap(model, labels=["cat", "dog", "snow", "ball"])
    x = torch.randn(1, 3, 20, 36)
    result = adapter.refine(x, KNOWN, pivots="pivot", strategy="residual", explainable=True)
    maps = result.explain("cat").maps
    for values in (maps.refined, maps.change):
        assert values.shape == (5, 9)
        assert values.nonzero().tolist() == [[1, 2]]
    assert maps.elsewhere == 0


@given(
    layout=st.sampled_from(["NCHW", "NHWC", "NLC"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    extra=st.integers(0, 5),
)
def test_split_and_join_are_inverse(layout, size, extra):
    grid = Grid(layout, size, extra if layout == "NLC" else 0)
    height, width = size
    shape = {
        "NCHW": (2, 3, height, width),
        "NHWC": (2, height, width, 3),
        "NLC": (2, extra + height * width, 3),
    }[layout]
    activation = torch.randn(shape)
    parts = grid.split(activation)
    assert parts[0].shape == (2, 3, height, width)
    assert torch.equal(grid.join(*parts), activation)


@pytest.mark.parametrize(
    ("shape", "image", "grid"),
    [
        ((1, 197, 192), (224, 224), Grid("NLC", (14, 14), 1)),
        ((1, 196, 192), (224, 224), Grid("NLC", (14, 14), 0)),
        ((1, 201, 192), (224, 224), Grid("NLC", (14, 14), 5)),
        ((1, 301, 192), (240, 320), Grid("NLC", (15, 20), 1)),
        ((1, 7, 7, 768), (224, 224), Grid("NHWC", (7, 7))),
        ((1, 512, 7, 7), (224, 224), Grid("NCHW", (7, 7))),
        ((1, 512), (224, 224), None),
    ],
)
def test_grids_of_known_families(shape, image, grid):
    assert Grid.of(shape, (1, 3, *image)) == grid


@pytest.mark.parametrize("strategy", ["residual", "layerwise", "newton"])
@pytest.mark.parametrize("pivots", [["stem"], ["stem", "again"], ["stem", "block", "again#1"]])
def test_refined_activations_are_those_of_the_refined_network(strategy, pivots):
    adapter, x = tiny_adapter(double=True), tiny_images(5).double()
    known = fa.Labels([{"dog": 1}, None, {"snow": 0, "ball": 1}, {"cat": 0}, None])
    plain = adapter.refine(x, known, strategy=strategy, pivots=pivots)
    result = adapter.refine(x, known, strategy=strategy, pivots=pivots, explainable=True)
    assert plain.activations is None
    torch.testing.assert_close(plain.after, result.after, rtol=0, atol=0)
    assert set(result.activations) == set(pivots)
    with frozen(adapter.model), torch.no_grad():
        tail = Tail.record(adapter.model, Inputs.of(x), pivots)
        edits = [lambda _, a=result.activations[site.name]: a for site in tail.pivots]
        again = tail.run(edits)
    torch.testing.assert_close(again, result.refined, rtol=1e-9, atol=1e-9)
    some = result.take(torch.tensor([2]))
    assert torch.equal(some.activations["stem"], result.activations["stem"][2:3])
    if len(pivots) > 1:
        why = result.explain("cat", image=2)
        moved = float(result.refined[2, 0] - result.before[2, 0])
        assert float(why.maps.change.sum()) == pytest.approx(moved, rel=1e-2, abs=1e-4)


def test_without_a_map_it_says_why():
    adapter = tiny_adapter()
    x = tiny_images(1)
    how = {"pivots": "block", "explainable": True}
    clamped = adapter.refine(x, KNOWN, strategy="clamp", **how).explain("cat")
    moved = adapter.refine(x, KNOWN, strategy="newton", **how).explain("cat")
    assert torch.equal(clamped.maps.before, moved.maps.before)
    assert clamped.maps.refined is clamped.maps.change is None
    assert "'clamp' moves no pivots" in clamped.no_maps
    assert clamped.no_maps in clamped.table()
    assert clamped.to_dict()["maps"]["refined"] is None
    flat = adapter.refine(x, KNOWN, pivots="drop", explainable=True).explain("cat")
    assert flat.maps is flat.to_dict()["maps"] is None
    assert "'drop' has no grid" in flat.no_maps


def test_pictures_are_written(tmp_path):
    adapter = tiny_adapter()
    adapter.transform = fa.Transform((16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    result = adapter.refine(tiny_images(1), KNOWN, pivots="stem", explainable=True)
    path = result.explain("cat").plot(tmp_path / "why.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(fa.FeedbackAdapterError, match=r"'.jpgg'"):
        result.explain("cat").plot(tmp_path / "why.jpgg")
