"""Forwards that are hard to cut: each test is named after what is hard about it."""

import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import SiteError


def conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, 1, 1)


class Base(nn.Module):
    """`features` of a subclass, pooled, and a head."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 8), conv(8, 8)
        self.head = nn.Linear(self.width, 4)

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Any:
        return self.head(self.features(images).mean((2, 3)))


def test_in_place_relu_after_the_pivot(holds, images):
    class Model(Base):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def features(self, x):
            return self.body(self.act(self.stem(x)))

    for pivot in ("stem", "act", "body"):
        holds(Model(), images, pivot)


def test_in_place_add_on_the_pivot(holds, images):
    class Model(Base):
        def features(self, x):
            y = self.stem(x)
            y += 1
            z = self.body(y)
            z += y
            return z.mul_(2)

    holds(Model(), images, "stem")
    holds(Model(), images, "body")


def test_in_place_change_of_what_came_before_the_pivot(holds, images):
    class Model(Base):
        def features(self, x):
            y = self.stem(x)
            z = self.body(y)
            y.relu_()
            return y + z

    holds(Model(), images, "body")


def test_the_input_is_modified_in_place(holds, images):
    class Model(Base):
        def features(self, x):
            return self.body(self.stem(x.mul_(1.0)))

    holds(Model(), images.clone(), "input")


def test_a_module_called_more_than_once(holds, images):
    class Model(Base):
        def features(self, x):
            y = self.stem(x)
            for _ in range(3):
                y = self.body(y).tanh() + y
            return y

    model = Model()
    names = [site.name for site in fa.wrap(model, labels=list("abcd")).sites(images)]
    assert names == ["input", "stem", "body#0", "body#1", "body#2", "head"]
    for pivot in names[:-1]:
        holds(model, images, pivot)


def test_a_shared_module_inside_a_replayed_one(holds, images):
    class Block(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.shared, self.own = shared, conv(8, 8)

        def forward(self, x):
            return self.own(self.shared(x)) + self.shared(x)

    class Model(Base):
        def __init__(self):
            super().__init__()
            self.one, self.two = Block(self.body), Block(self.body)

        def features(self, x):
            x = self.stem(x)
            return self.two(self.one(x) + self.body(x))

    for pivot in ("one", "one.own", "two.own", "body#0", "body#3"):
        holds(Model(), images, pivot)


def test_a_shared_module_in_a_block_with_functional_code_before_it(holds, images):
    class Block(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.shared, self.own = shared, conv(8, 8)

        def forward(self, x):
            y = self.own(x)
            half = y / 2  # used after the pivot, which has its name from outside
            return self.shared(y) + half

    class Model(Base):
        def __init__(self):
            super().__init__()
            self.one, self.two = Block(self.body), Block(self.body)

        def features(self, x):
            return self.two(self.one(self.stem(x)))

    for pivot in ("body#0", "body#1"):
        holds(Model(), images, pivot)


@dataclasses.dataclass
class Pair:
    left: Tensor
    right: Tensor


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, {"deep": b}],
        lambda a, b: {"left": a, "right": b},
        lambda a, b: OrderedDict(left=a, right=b),
        Pair,
    ],
    ids=["tuple", "nested", "dict", "OrderedDict", "dataclass"],
)
def test_structured_outputs(holds, images, pack):
    selectors = {"tuple": "01", "list": ["0", "1.deep"]}
    names = selectors.get(type(pack(0, 0)).__name__, ["left", "right"])

    class Split(nn.Module):
        def forward(self, x):
            return pack(*x.chunk(2, 1))

    def unpack(value: Any) -> tuple[Tensor, Tensor]:
        if isinstance(value, Pair):
            return value.left, value.right
        left, right = value.values() if isinstance(value, dict) else value
        return left, right["deep"] if isinstance(right, dict) else right

    class Model(Base):
        width = 4

        def __init__(self):
            super().__init__()
            self.split = Split()

        def features(self, x):
            left, right = unpack(self.split(self.body(self.stem(x))))
            return left * right.sigmoid()

        def forward(self, images):
            logits = super().forward(images)
            return {"logits": logits, "other": None}

    for name in names:
        holds(Model(), images, f"split:{name}", select="logits")


def test_keyword_only_inputs(holds, images):
    class Model(Base):
        def features(self, x):
            return self.body(self.stem(x))

        def forward(self, *, pixels, scale):
            return super().forward(pixels) * scale

    holds(Model(), {"pixels": images, "scale": torch.tensor(2.0)}, "stem")


def test_functional_code_between_modules(holds, images):
    class Model(Base):
        width = 16

        def features(self, x):
            y = F.gelu(F.avg_pool2d(self.stem(x), 2))
            parts = [y, self.body(y)]
            return torch.cat(parts, 1).view(x.shape[0], 16, -1, y.shape[-1])

    for pivot in ("stem", "body"):
        holds(Model(), images, pivot)


def test_parallel_branches(holds, images):
    class Model(Base):
        def __init__(self):
            super().__init__()
            self.left, self.right = conv(8, 8), conv(8, 8)

        def features(self, x):
            x = self.stem(x)
            a, b = self.left(x), self.right(x)
            return self.body(a + b.tanh()) + a

    for pivot in ("stem", "left", "right"):
        holds(Model(), images, pivot)


def test_a_growing_list_of_features(holds, images):
    class Layer(nn.Module):  # densenet: the list that arrives is read, never changed
        def __init__(self, width):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(width), conv(width, 4)

        def forward(self, features):
            return self.conv(F.relu(self.norm(torch.cat(features, 1)), inplace=True))

    class Model(Base):
        width = 20

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Layer(8 + 4 * i) for i in range(3))

        def features(self, x):
            found = [self.stem(x)]
            for layer in self.layers:
                found.append(layer(found))  # noqa: PERF401: a layer reads what is there
            return torch.cat(found, 1)

    for pivot in ("stem", "layers.0", "layers.1.norm", "layers.2.conv"):
        holds(Model().eval(), images, pivot)


def test_a_method_other_than_forward_of_a_child(holds, images):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(8, 8), conv(8, 8)

        def encode(self, x):
            return self.two(self.one(x).relu())

    class Model(Base):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

        def features(self, x):
            return self.encoder.encode(self.stem(x))

    for pivot in ("stem", "encoder.one", "encoder.two"):
        holds(Model(), images, pivot)


def test_a_container_that_is_never_called(holds, images):
    class Model(Base):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleList([conv(3, 8), conv(3, 8)])

        def features(self, x):
            return sum(self.body(branch(x)) for branch in self.branches)

    holds(Model(), images, "branches.0")
    holds(Model(), images, "branches.1")
    with pytest.raises(SiteError, match="branches"):
        holds(Model(), images, "branches")


def test_a_forward_that_depends_on_the_input_size(holds):
    class Model(Base):
        def features(self, x):
            x = self.stem(x)
            for _ in range(x.shape[-1] // 8):
                x = self.body(x)
            return x

    model = Model()
    holds(model, torch.randn(2, 3, 8, 8), "stem")
    holds(model, torch.randn(2, 3, 16, 24), "body#1")
    holds(model, torch.randn(2, 3, 8, 8), "body")


def test_a_forward_that_caches_on_self(holds, images):
    class Model(Base):
        cached: Tensor | None = None

        def features(self, x):
            x = self.stem(x)
            if self.cached is None or self.cached.shape != x.shape[1:]:
                self.cached = torch.linspace(0, 1, x[0].numel()).view(x.shape[1:])
            return self.body(x + self.cached)

    holds(Model(), images, "stem")


def test_random_numbers_that_the_tail_draws_are_refused(images):
    class Model(Base):
        def features(self, x):
            return self.body(self.stem(x)) + torch.randn(8, 1, 1) * 10

    adapter = fa.wrap(Model(), labels=list("abcd"))
    with pytest.raises(SiteError, match="isn't deterministic"):
        adapter.refine(images, fa.Labels({"a": 1}), pivots="stem")


def test_a_path_between_pivots_that_depends_on_the_activation_is_refused_with_a_reason(images):
    class Model(Base):
        def features(self, x):
            x = self.stem(x)
            return self.body(x) if x.mean() < 1e-4 + self.level else self.stem(x[:, :3])

    model = Model()
    with torch.no_grad():
        model.level = float(model.stem(images).mean())
        model.head.weight.mul_(100)
    adapter = fa.wrap(model, labels=list("abcd"))
    with pytest.raises(SiteError, match="another path"):
        adapter.refine(
            images, fa.Labels({"a": 1, "b": 0, "c": 1}), strategy="residual", step_size=10.0,
            pivots=["stem", "body"], keep="last", patience=None,
        )  # fmt: skip


def test_an_output_that_is_infinite_or_nan_where_nothing_is_known(images):
    class Model(Base):
        def forward(self, images):
            known = super().forward(images)
            masked = known.detach().clone()
            masked[:, 0], masked[:, 1], masked[:, 2] = -torch.inf, torch.inf, torch.nan
            return {"known": known, "masked": masked}

        def features(self, x):
            return self.body(self.stem(x).relu())

    outputs = {name: fa.Output(tuple("abcd"), select=name) for name in ("known", "masked")}
    told = fa.Labels({"a": 1, "b": 0}, output="known")
    result = fa.wrap(Model(), outputs=outputs).refine(images, told, pivots="stem")
    assert (result.loss < result.losses[0]).all()
    assert result.after["masked"][:, :2].isinf().all()
