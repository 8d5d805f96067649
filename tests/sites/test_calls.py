"""Calls that aren't ordinary, and what they leave behind: each test says the case."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

import feedback_adapter as fa
from feedback_adapter.testing import differences, snapshot

TOLD = fa.Labels({"a": 1})
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore:.*The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    """A stem, something in the middle, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = (
            nn.Conv2d(3, 8, 3, 2),
            nn.Conv2d(8, 8, 3, 2),
            nn.Linear(8, 2),
        )
        self.more()

    def more(self):
        pass

    def middle(self, x):
        return x

    def forward(self, x):
        return self.head(self.middle(self.body(self.stem(x).relu()).relu()).mean((2, 3)))


class Chooses(Base):
    """`torch.cond` compiles both branches."""

    def more(self):
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def middle(self, x):
        return torch.cond(x.sum() > 0, lambda y: self.left(y), lambda y: self.right(y), (x,))


class Makes(Base):
    """A module that is made on the way, anew in each forward pass."""

    def middle(self, x):
        return nn.AvgPool2d(2, 1)(x)


class Copies(Base):
    def middle(self, x):
        return copy.deepcopy(self.stem).requires_grad_(False)(x[:, :3]) + x.mean()


class Counts(Base):
    """Its number of calls depends on what it sees."""

    def middle(self, x):
        for _ in range(1 + int(x.mean() > 0)):
            x = self.again(x)
        return x

    def more(self):
        self.again = nn.Conv2d(8, 8, 1)


class Sparse(Base):
    class ToSparse(nn.Module):
        def forward(self, x):
            return x.to_sparse()

    def more(self):
        self.sparse = self.ToSparse()

    def middle(self, x):
        return self.sparse(x).to_dense()


class Tangent(Base):
    def more(self):
        self.act = nn.Tanh()

    def middle(self, x):
        return sum(torch.func.jvp(self.act, (x,), (x,)))


class Remembers(Base):
    """Writes attributes, lists, dictionaries and tensors that aren't buffers."""

    def more(self):
        self.memory, self.seen, self.count = [], {}, torch.zeros(1)

    def middle(self, x):
        self.last = x
        self.memory.append(x.mean())
        self.seen[len(self.memory)] = True
        self.count.add_(1)
        return x * (1 + 0 * len(self.memory))


class Fused(Base):
    """PyTorch's fused normalisation writes its buffers without a trace."""

    def more(self):
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def middle(self, x):
        F.batch_norm(x.detach(), self.mean, self.var, training=True)
        return x


class Evaluates(Base):
    """Has an `eval` of its own."""

    scale = 1.0

    def eval(self):
        self.scale = 2.0
        return super().eval()

    def middle(self, x):
        return x * self.scale


CASES = [Chooses, Makes, Copies, Counts, Sparse, Tangent, Remembers, Fused, Evaluates]


def left_behind(before, model):
    """What is different; a tensor that was written and put back may have a new version."""
    return [what for what in differences(before, snapshot(model)) if "._version" not in what]


@pytest.mark.parametrize("pivot", ["stem", "auto"])
@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_it_says_what_it_says_in_evaluation_mode_is_refined_and_is_as_it_was(kind, pivot):
    torch.manual_seed(0)
    model = kind().train()
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(IMAGES)
    before = snapshot(model)
    adapter = fa.wrap(model, labels=["a", "b"])
    torch.testing.assert_close(adapter.predict(IMAGES), expected)
    assert not left_behind(before, model)
    result = adapter.refine(IMAGES, TOLD, pivots=pivot, strategy="residual", steps=5)
    torch.testing.assert_close(result.before, expected)
    assert (result.losses.amin(0) < result.losses[0]).all()
    assert not left_behind(before, model)


class Branches(nn.Module):
    """Bright images take another way, which the first two images of a batch may not show."""

    def __init__(self):
        super().__init__()
        self.bright, self.dark, self.head = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x):
        way = self.bright if x.mean() > 0.5 else self.dark
        return self.head(way(x.flatten(1)).tanh())


@pytest.mark.parametrize("strategy", ["newton", "residual", "clamp"])
@pytest.mark.parametrize("prepared", [False, True])
def test_images_that_take_another_way_get_a_site_of_their_own(prepared, strategy):
    model = Branches().eval()
    adapter, images = fa.wrap(model, labels=["a", "b"]), torch.rand(3, 3, 2, 2)
    mixed = torch.cat([images * 0.1, torch.ones_like(images) * 2])  # the first two are dark
    for batch in (images * 0.1, images * 0.1 + 0.9, images * 0.1, mixed):
        before = snapshot(model)
        given = adapter.prepare(batch) if prepared else batch
        result = adapter.refine(given, TOLD, strategy=strategy)
        way = "bright" if batch.mean() > 0.5 else "dark"
        assert torch.equal(result.before, model(batch))
        assert result.pivots == ((way,) if strategy != "clamp" else ())
        assert result.improved.all()
        assert not differences(before, snapshot(model))


def test_the_error_of_a_pivot_that_is_on_another_way_says_so():
    adapter = fa.wrap(Branches().eval(), labels=["a", "b"])
    with pytest.raises(fa.errors.SiteError, match="doesn't call 'bright' for these images"):
        adapter.refine(torch.zeros(2, 3, 2, 2), TOLD, pivots="bright")


def test_an_output_that_is_no_dense_tensor_is_no_pivot():
    model = Sparse().eval()
    adapter = fa.wrap(model, labels=["a", "b"])
    with pytest.raises(fa.errors.SiteError, match="'sparse' is torch.float32, torch.sparse_coo"):
        adapter.refine(IMAGES, TOLD, pivots="sparse")
    assert "sparse" not in [site.name for site in adapter.sites(IMAGES)]


def test_attention_that_cannot_be_differentiated_here_is_named_and_auto_goes_behind_it():
    class Flex(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.qkv = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24)
            self.after, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            tokens = self.qkv(self.patches(x).flatten(2).transpose(1, 2)).chunk(3, -1)
            q, k, v = [part.unflatten(-1, (2, 4)).transpose(1, 2) for part in tokens]
            return self.head(self.after(flex_attention(q, k, v).transpose(1, 2).flatten(2)).mean(1))

    model = Flex().eval()
    adapter = fa.wrap(model, labels=["a", "b"])
    with torch.no_grad():
        torch.testing.assert_close(adapter.predict(IMAGES), model(IMAGES))
    with pytest.raises(fa.errors.SiteError, match="Choose a later pivot"):
        adapter.refine(IMAGES, TOLD, pivots="patches")
    result = adapter.refine(IMAGES, TOLD, strategy="residual", steps=5)
    assert result.pivots[0] in ("after", "head")
    assert (result.losses.amin(0) < result.losses[0]).all()


@pytest.mark.parametrize("form", ["script", "trace", "export"])
def test_exported_models_hide_their_modules_and_auto_is_the_input(form):
    model = Base().eval()
    made = {
        "script": lambda: torch.jit.script(model),
        "trace": lambda: torch.jit.trace(model, IMAGES),
        "export": lambda: torch.export.export(model, (IMAGES,)).module(),
    }
    adapter = fa.wrap(made[form](), labels=["a", "b"])
    with pytest.raises(fa.errors.SiteError, match="input"):
        adapter.refine(IMAGES, TOLD, pivots="stem")
    result = adapter.refine(IMAGES, TOLD, strategy="residual", steps=5)
    assert result.pivots == ("input",)
    assert result.improved.all()
    torch.testing.assert_close(result.before, model(IMAGES))


@pytest.mark.parametrize("what", ["random", "depends on gradients"])
def test_a_model_whose_second_pass_differs_is_a_named_error(what):
    class Differs(Base):
        def middle(self, x):
            if what == "random":
                return x + torch.randn_like(x)
            return x * 2 if torch.is_grad_enabled() else x

    with pytest.raises(fa.errors.SiteError, match="gave another result"):
        fa.wrap(Differs(), labels=["a", "b"]).refine(IMAGES, TOLD, pivots="stem")


class Packs(nn.Module):
    """A recurrent network over sequences of several lengths."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 2)
        self.recurrent = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x, lengths):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        packed = nn.utils.rnn.pack_padded_sequence(tokens, lengths, True, enforce_sorted=False)
        return self.head(self.recurrent(packed)[1][0][-1])


@pytest.mark.parametrize("pivot", [None, "input", "patches", "head"])
def test_packed_sequences_are_passed_on(pivot):
    model, given = Packs().eval(), (IMAGES, torch.tensor([16, 5]))
    adapter, before = fa.wrap(model, labels=["a", "b"]), snapshot(model)
    for strategy in ("newton", "residual"):
        result = adapter.refine(given, TOLD, strategy=strategy, pivots=pivot)
        torch.testing.assert_close(result.before, model(*given))
        assert result.improved.all()
    assert not differences(before, snapshot(model))


class Detections(tuple):
    """A tuple and a list with constructors and attributes of their own."""

    def __new__(cls, scores, boxes):
        assert isinstance(scores, torch.Tensor)
        return super().__new__(cls, (scores, boxes))


class Levels(list):
    def __init__(self, *levels, strides):
        super().__init__(levels)
        self.strides = strides


@pytest.mark.parametrize("kind", ["tuple", "list"])
def test_containers_of_a_users_own_kind_stay_of_that_kind(kind):
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            if kind == "tuple":
                return Detections(self.one(x), self.two(x))
            return Levels(self.one(x), self.two(x), strides=(1, 1))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.neck, self.head = Backbone(), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            levels = self.backbone(x)
            assert isinstance(levels, Detections) or levels.strides == (1, 1)
            return self.head((self.neck(levels[0]) + levels[1]).relu().mean((2, 3)))

    model = Model().eval()
    for pivot in ("neck", "backbone:1", "backbone.two"):
        result = fa.wrap(model, labels=["a", "b"]).refine(IMAGES, TOLD, pivots=pivot)
        torch.testing.assert_close(result.before, model(IMAGES))
        assert result.improved.all()
