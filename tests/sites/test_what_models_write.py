"""What a forward pass writes or makes, and what it returns: each test says the case."""

import collections
import copy
import types

import numpy as np
import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.testing import differences, snapshot

TOLD = fa.Labels({"a": 1})


class Notes:
    """Where a model of this file keeps what it has seen."""

    def __init__(self):
        self.count, self.last, self.log = 0, torch.zeros(1), [{"seen": []}]


class Keeps(nn.Module):
    """Writes to whatever it holds, with gradients where there are some."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)
        self.notes, self.space = Notes(), types.SimpleNamespace(n=0)
        self.nested = {"list": [{"set": {0}}], "tensor": torch.zeros(2)}
        self.recent = collections.deque([0], maxlen=3)
        self.counts = collections.defaultdict(list)
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        features = self.stem(x).relu().mean((2, 3))
        self.notes.count += 1
        self.notes.last.add_(1)
        self.notes.log[0]["seen"].append(len(x))
        self.space.n += 1
        self.nested["list"][0]["set"].add(self.notes.count)
        self.nested["list"].append(None)
        self.nested["tensor"].mul_(2).add_(1)
        self.recent.append(self.notes.count)
        self.counts[self.notes.count].append(1)
        self.mean.mul_(0.9).add_(features.mean())
        return self.head(features)

    def kept(self):
        log, nested = self.notes.log, self.nested
        held = [self.notes.count, log[0]["seen"], self.space.n, nested["list"], self.recent]
        tensors = [self.notes.last, nested["tensor"], self.mean]
        return (
            copy.deepcopy(held),
            dict(self.counts),
            [(t.tolist(), t.requires_grad) for t in tensors],
        )


class Elsewhere(collections.Counter):
    """As one of the user's other files would define it."""

    def __init__(self):
        super().__init__()
        self.array, self.chain = np.zeros(2), None

    __module__ = "elsewhere"


def test_what_is_kept_in_objects_of_other_files_in_arrays_and_in_long_chains_is_put_back():
    class Keeps(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 2))
            self.kept, self.pair = Elsewhere(), Pair([0], np.zeros((2, 2))[::-1])
            for _ in range(3000):
                self.kept.chain = [self.kept.chain]

        def forward(self, x):
            self.kept["calls"] += 1
            self.kept.array += 1
            self.kept.chain.append(0)
            self.pair.one.append(1)
            return super().forward(x)

    Pair = collections.namedtuple("Pair", "one two")
    model, images = Keeps().eval(), torch.rand(2, 3, 2, 2)
    model(images)
    adapter = fa.wrap(model, labels=["a", "b"])
    for strategy in ("newton", "residual", "clamp"):
        assert adapter.refine(images, TOLD, strategy=strategy).improved.all()
    adapter.predict(images)
    assert model.kept == {"calls": 1}
    assert model.kept.array.tolist() == [1, 1]
    assert len(model.kept.chain) == 2
    assert model.pair.one == [0, 1]


@pytest.mark.parametrize("pivots", ["stem", "input", "auto"])
def test_what_a_forward_pass_writes_at_any_depth_is_put_back(pivots):
    model, images = Keeps().eval(), torch.rand(2, 3, 16, 16)
    before = model.kept()
    adapter = fa.wrap(model, labels=["a", "b"])
    for strategy in ("newton", "residual", "clamp"):
        assert adapter.refine(images, TOLD, strategy=strategy, pivots=pivots).improved.all()
        assert model.kept() == before
    adapter.predict(images)
    adapter.sites(images)
    assert model.kept() == before


def test_a_model_that_makes_its_layers_when_it_first_runs_is_named_until_it_has_run():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(12, 8)

        def forward(self, x):
            features = self.stem(x.flatten(1)).relu()
            if not hasattr(self, "head"):
                self.head = nn.Linear(features.shape[1], 2)
            return self.head(features)

    model, images = Late().eval(), torch.rand(2, 3, 2, 2)
    adapter = fa.wrap(model, labels=["a", "b"])
    for call in (adapter.predict, adapter.sites, lambda x: adapter.refine(x, TOLD)):
        with pytest.raises(fa.errors.ModelError, match="Run the model once on images"):
            call(images)
        assert not hasattr(model, "head")
    expected = model(images)
    assert torch.equal(adapter.refine(images, TOLD).before, expected)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (lambda z: z.argsort(1), "int64"),
        (lambda z: z > 0, "bool"),
        (lambda z: z.to(torch.cfloat), "complex64"),
        (lambda z: z.to_sparse(), "sparse_coo"),
    ],
    ids=["classes", "thresholds", "complex", "sparse"],
)
def test_outputs_that_are_no_logits_are_named(last, said):
    class Then(nn.Linear):
        def forward(self, x):
            return last(super().forward(x))

    images, model = torch.rand(2, 3), Then(3, 2).eval()
    for options in ({}, {"pivots": "input"}, {"strategy": "clamp", "pivots": "input"}):
        with pytest.raises(fa.errors.FeedbackAdapterError, match=f"{said}.*before any argmax|site"):
            fa.wrap(model, labels=["a", "b"]).refine(images, TOLD, **options)
    with pytest.raises(fa.errors.ModelError, match=said):
        fa.wrap(model, labels=["a", "b"]).predict(images)


class Merged(nn.Linear):
    """Merges a low-rank change into its weight for evaluation, as loralib's layers do."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.change, self.merged = nn.Parameter(torch.randn(sizes[1], sizes[0]) * 0.1), False

    def train(self, mode=True):
        super().train(mode)
        if mode is self.merged:
            self.weight.data += -self.change.data if mode else self.change.data
            self.merged = not mode
        return self

    def forward(self, x):
        return nn.functional.linear(x, self.weight + (0 if self.merged else self.change), self.bias)


class Fused(nn.Module):
    """Adds one branch to another for evaluation, and drops it."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 2)

    def train(self, mode=True):
        if not mode and self.training:
            self.one.weight.data += self.two.weight.data
            self.one.bias.data += self.two.bias.data
            self.two = None
        return super().train(mode)

    def forward(self, x):
        x = x.flatten(1)
        features = self.one(x) if self.two is None else self.one(x) + self.two(x)
        return self.head(features.tanh())


@pytest.mark.parametrize("kind", ["merged", "fused"])
def test_a_model_whose_evaluation_mode_changes_its_weights_is_bit_for_bit_what_it_was(kind):
    torch.manual_seed(0)
    model, images = Fused(), torch.rand(2, 3, 2, 2)
    if kind == "merged":
        model = nn.Sequential(nn.Flatten(), Merged(12, 8), nn.Tanh(), Merged(8, 2))
    expected = copy.deepcopy(model).eval()(images).detach()
    adapter, before = fa.wrap(model.train(), labels=["a", "b"]), snapshot(model)
    versions = {name for name in before if name.endswith("._version")}
    for strategy in ("newton", "residual", "clamp"):
        result = adapter.refine(images, TOLD, strategy=strategy)
        torch.testing.assert_close(result.before, expected)
        torch.testing.assert_close(adapter.predict(images), expected)
        assert result.improved.all()
        after = {
            name: before[name] if name in versions else v for name, v in snapshot(model).items()
        }
        assert not differences(before, after)


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_that_refuses_a_mode_is_named_and_as_it_was(mode):
    class Refuses(nn.Sequential):
        def train(self, mode_asked=True):
            if mode_asked is mode:
                raise NotImplementedError("not this mode")
            return super().train(mode_asked)

    model, images = Refuses(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2)
    adapter = fa.wrap(model, labels=["a", "b"])
    with pytest.raises(fa.errors.ModelError, match=r"not this mode.*model\.eval\(\)"):
        adapter.refine(images, TOLD)
    assert all(module.training for module in model.modules())


class ActNorm(nn.Module):
    """Sets its own parameters from the first batch that it sees."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.register_buffer("set", torch.tensor(False))

    def forward(self, x):
        if not self.set:
            self.shift.data.copy_(-x.mean((0, 2, 3), keepdim=True))
            self.set.fill_(True)
        return x + self.shift


class Cosine(nn.Linear):
    """Normalises its weight in every pass, in one of the ways that people write that."""

    def __init__(self, how):
        super().__init__(8, 2, bias=False)
        self.how = how

    def forward(self, x):
        unit = nn.functional.normalize(self.weight.detach())
        if self.how == "data":
            self.weight.data = unit
        elif self.how == "into data":
            self.weight.data.copy_(unit)
        else:
            with torch.no_grad():
                self.weight.copy_(unit)
        return super().forward(nn.functional.normalize(x.flatten(2).mean(2)))


@pytest.mark.parametrize("last", ["act norm", "data", "into data", "in place"])
def test_a_forward_pass_that_writes_its_own_parameters_is_named_until_it_has_run(last):
    torch.manual_seed(0)
    tail = [Cosine(last)]
    if last == "act norm":
        tail = [ActNorm(), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)]
    model, images = nn.Sequential(nn.Conv2d(3, 8, 3), *tail).eval(), torch.rand(2, 3, 8, 8)
    adapter, before = fa.wrap(model, labels=["a", "b"]), snapshot(model)
    buffers = {name for name in before if "set._version" in name}  # written to twice
    for use in (adapter.predict, adapter.sites, adapter.prepare, lambda x: adapter.refine(x, TOLD)):
        with pytest.raises(fa.errors.ModelError, match=r"its own weights.*model\(images\)"):
            use(images)
        after = {k: before[k] if k in buffers else v for k, v in snapshot(model).items()}
        assert not differences(before, after)
    expected, before = model(images).detach(), snapshot(model)
    prepared = adapter.prepare(images)
    for strategy in ("newton", "residual", "clamp", "newton"):
        for given in (images, prepared):
            result = adapter.refine(given, TOLD, strategy=strategy)
            assert result.improved.all()
            torch.testing.assert_close(result.before, expected)
            assert not differences(before, snapshot(model))


def test_an_embedding_with_max_norm_is_bit_for_bit_what_it_was():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 2)
            self.positions = nn.Embedding(16, 8, max_norm=0.5)

        def forward(self, x):
            tokens = self.stem(x).flatten(2).mT
            return self.head((tokens + self.positions(torch.arange(tokens.shape[1]))).mean(1))

    torch.manual_seed(0)
    model = Positions().eval()
    adapter, before = fa.wrap(model, labels=["a", "b"]), snapshot(model)
    prepared = adapter.prepare(torch.rand(2, 3, 8, 8))
    for size in (8, 16, 8):  # 4 rows are written to, then all
        images = torch.rand(2, 3, size, size)
        expected = copy.deepcopy(model)(images).detach()
        for given in (images, prepared):
            assert adapter.refine(given, TOLD).improved.all()
        torch.testing.assert_close(adapter.predict(images), expected)
        assert not differences(before, snapshot(model))
