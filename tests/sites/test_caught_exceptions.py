"""Models that catch an exception which a module of theirs raises, as early exits do."""

import itertools

import pytest
import torch
from torch import nn

import feedback_adapter as fa


def conv(inside, outside):
    return nn.Conv2d(inside, outside, 3, 1, 1)


class Base(nn.Module):
    """`features` of a subclass, pooled, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = conv(3, 8), conv(8, 8), nn.Linear(8, 4)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


class Early(nn.Module):
    """Leaves two modules by an exception."""

    class Done(Exception):
        pass

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.never = conv(8, 8), conv(8, 8), conv(8, 8)

        def forward(self, x):
            x = self.one(x).tanh()
            raise Early.Done(self.two(x).relu())

    class Stages(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = conv(8, 8), Early.Stage()

        def forward(self, x):
            return self.last.never(self.last(self.first(x)))

    def __init__(self):
        super().__init__()
        self.stages = Early.Stages()

    def forward(self, x):
        try:
            return self.stages(x)
        except Early.Done as done:
            return done.args[0]


@pytest.mark.parametrize("looks", [1, 2])
def test_an_exception_that_the_model_catches(holds, images, looks):
    class Model(Base):
        def __init__(self):
            super().__init__()
            self.body = Early()

        def features(self, x):
            x = self.stem(x)
            for _ in range(looks):
                x = self.body(x) + x
            return x

    model = Model().eval()
    adapter = fa.wrap(model, labels=list("abcd"))
    names = [site.name for site in adapter.sites(images)]
    inside = ["body.stages.first", "body.stages.last.one", "body.stages.last.two", "body"]
    if looks == 1:
        assert names == ["input", "stem", *inside, "head"]
    for pivot in names[1:-1]:
        holds(model, images, pivot)
    for pivots in itertools.combinations(names, 2):
        result = adapter.refine(images, fa.Labels({"a": 1, "b": 0}), pivots=pivots)
        assert (result.losses.amin(0) < result.losses[0]).all()
        assert torch.equal(result.before, model(images))


def test_what_an_exception_skipped_is_made_again_behind_a_pivot_in_the_same_code(images):
    class Model(Base):
        def __init__(self):
            super().__init__()
            self.early, self.other = Early(), conv(8, 8)

        def features(self, x):
            x = self.stem(x)
            try:
                x = self.early.stages(x)
            except Early.Done as done:
                x = x + done.args[0]
            return self.body(self.other(x).relu())

    model = Model().eval()
    adapter = fa.wrap(model, labels=list("abcd"))
    for pivot in ("other", "body"):
        result = adapter.refine(images, fa.Labels({"a": 1}), strategy="residual", pivots=pivot)
        assert torch.equal(result.before, model(images))
        assert (result.losses.amin(0) < result.losses[0]).all()
