"""Models as strangers bring them: each test says the case."""

import copy
import os
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torchvision.models.feature_extraction import create_feature_extractor

import feedback_adapter as fa
from feedback_adapter.sites import frozen
from feedback_adapter.testing import untouched

TOLD = fa.Labels({"a": 1})
CALL = nn.Module.__call__


class Drops(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(F.dropout(self.stem(x).mean((2, 3)), 0.5, self.training))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 48)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        q, k, v = self.qkv(self.patches(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(query=q, key=k, value=v).mean(1))


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.heads = nn.ModuleList(nn.Linear(8, 2) for _ in range(3))

    def forward(self, x):
        features = self.stem(x).relu().mean((2, 3))

        def head(p, b):
            return functional_call(self.heads[0], (p, b), (features,))

        return vmap(head)(*stack_module_state(list(self.heads))).mean(0)


class Frozen(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.encoder, self.head, self.mode = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2), mode

    def forward(self, x):
        with self.mode():
            features = self.encoder(x)
        return self.head(features.relu().mean((2, 3)))


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)
        self.register_buffer("held", torch.zeros(1, 8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        self.held = 0.8 * self.held + 0.2 * self.stem(x).relu().mean((2, 3))
        return self.head(self.held)


class OwnCall(nn.Module):
    """Its class has a `__call__` of its own, with or without PyTorch's in it."""

    def __init__(self, through):
        super().__init__()
        self.through = through
        self.stem, self.body, self.head = (
            nn.Conv2d(3, 8, 3, 2),
            nn.Conv2d(8, 8, 3, 2),
            nn.Linear(8, 2),
        )

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).relu().mean((2, 3)))

    def __call__(self, x):
        return super().__call__(x) if self.through else self.forward(x)


class Padded(nn.Module):
    def __init__(self, norm=False, heads=2, depth=2):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 2)
        layer = nn.TransformerEncoderLayer(16, heads, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(16) if norm else None)

    def forward(self, x, padded):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(tokens, src_key_padding_mask=padded).mean(1))


class Normalised(nn.Module):
    """Batch normalisation, perhaps without running statistics: then it mixes images."""

    def __init__(self, running):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm1d(8, track_running_stats=running)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.norm(self.stem(x).relu().mean((2, 3))))


class TokensFirst(nn.Module):
    """A sequence-first transformer: 16 tokens of 32 by 32 pixels."""

    def __init__(self):
        super().__init__()
        self.patches, self.layer = nn.Conv2d(3, 16, 8, 8), nn.TransformerEncoderLayer(16, 2, 32)
        self.top, self.head = nn.TransformerEncoderLayer(16, 2, 32), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.top(self.layer(self.patches(x).flatten(2).permute(2, 0, 1))).mean(0))


class Reversed(nn.Module):
    """In the middle the images are in another order."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(self.stem(x.flatten(1)).flip(0)).relu().flip(0))


class Batch(nn.Module):
    """Takes a dict as its one argument, as timm's NaFlexVit does."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)

    def forward(self, batch):
        return self.head(self.stem(batch["pixels"]).relu().mean((2, 3)))


def refine(model, images, **options):
    return fa.wrap(model, labels=["a", "b"]).refine(images, TOLD, **options)


def test_a_graph_with_a_training_form_is_put_into_evaluation_mode_by_its_own_method():
    model = create_feature_extractor(Drops(), return_nodes={"head": "head"})
    code, images = model.code, torch.rand(2, 3, 32, 32)
    expected = copy.deepcopy(model).eval()(images)["head"]
    adapter = fa.wrap(model, outputs={"y": fa.Output(("a", "b"), select="head")})
    assert torch.allclose(adapter.refine(images, TOLD).before["y"], expected, atol=1e-6)
    assert model.training
    assert model.code == code


def test_attention_called_by_keyword():
    model, images = Attends().eval(), torch.rand(2, 3, 32, 32)
    assert torch.equal(fa.wrap(model, labels=["a", "b"]).predict(images), model(images))
    with frozen(model):  # another thread's keyword calls pass
        answers = []
        thread = threading.Thread(target=lambda: answers.append(model(images)))
        thread.start()
        thread.join()
    assert torch.equal(answers[0], model(images))


@pytest.mark.parametrize("pivot", ["stem", "auto"])
def test_an_ensemble_of_heads_by_vmap(pivot):
    assert refine(Ensemble().eval(), torch.rand(2, 3, 16, 16), pivots=pivot).improved.all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_encoder_that_runs_without_gradients(mode):
    result = refine(Frozen(mode).eval(), torch.rand(2, 3, 16, 16), pivots="encoder")
    assert result.improved.all()


def test_lazy_modules_that_have_not_run_are_a_named_error():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(fa.errors.ModelError, match="Run it once"):
        fa.wrap(model, labels=["a", "b"]).predict(torch.rand(2, 3, 8, 8))


def test_buffers_that_a_forward_pass_writes_are_put_back():
    model, images = Remembers().eval(), torch.rand(2, 3, 16, 16)
    expected = copy.deepcopy(model)(images)
    held = model.held
    with pytest.raises(fa.errors.SiteError, match="keeps state"):
        refine(model, images, pivots="stem")
    assert model.held is held
    assert int(model.calls) == 0
    assert torch.equal(model(images), expected)


def test_a_trace_in_another_thread_does_not_leave_our_call_behind():
    model, images = Drops(), torch.rand(1, 3, 32, 32)
    tracer = torch.fx.Tracer()
    inside, leave = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def forward(self, x):
            inside.set()
            leave.wait(10)
            return x + 1

    thread = threading.Thread(target=lambda: tracer.trace(Waits()))
    with frozen(model):
        thread.start()
        assert inside.wait(10)
    leave.set()
    thread.join()
    refine(model, images, pivots="stem")
    assert nn.Linear(2, 2)(torch.ones(1, 2)).shape == (1, 2)  # no endless recursion
    assert nn.Module.__call__ is CALL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_while_a_model_is_held_has_it_as_it_was():
    model = Drops().train()
    with untouched(model), frozen(model):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            fine = model.training and nn.Module.__call__ is CALL
            fine &= all(p.requires_grad for p in model.parameters())
            os.write(write, b"1" if fine else b"0")
            os._exit(0)
        assert os.read(read, 1) == b"1"
        os.waitpid(child, 0)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.auto, self.output = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Linear(8, 2)

    def forward(self, x):
        return self.output(self.auto(self.input(x)).mean((2, 3)))


@pytest.mark.parametrize("pivot", ["input", ".input", ".auto", "auto", "output"])
def test_modules_whose_names_mean_something_else(pivot):
    model, images = Named().eval(), torch.rand(2, 3, 16, 16)
    names = [site.name for site in fa.wrap(model, labels=["a", "b"]).sites(images)]
    assert names == ["input", ".input", ".auto", "output"]
    assert refine(model, images, pivots=pivot).improved.all()


def test_a_call_that_is_no_number_is_an_error():
    with pytest.raises(fa.errors.SiteError, match="There is no site 'output#one'"):
        refine(Named().eval(), torch.rand(2, 3, 16, 16), pivots="output#one")


@pytest.mark.parametrize("batch", [3, 16], ids=["3 images", "as many images as tokens"])
def test_a_pivot_whose_first_dimension_is_not_the_batch_is_refused(batch):
    model, images = TokensFirst().eval(), torch.rand(batch, 3, 32, 32)
    adapter = fa.wrap(model, labels=["a", "b"])
    assert [site.name for site in adapter.sites(images)] == ["input", "patches", "head"]
    for pivot in ("layer", "top.linear1"):
        with pytest.raises(fa.errors.SiteError, match=f"{pivot}.*first dimension"):
            adapter.refine(images, TOLD, pivots=pivot)
        with pytest.raises(fa.errors.SiteError, match=f"{pivot}.*first dimension"):
            adapter.prepare(images, pivots=["patches", pivot])
    assert adapter.refine(images, TOLD, pivots="patches", strategy="residual").improved.all()


def test_a_pivot_whose_rows_are_in_another_order_is_refused():
    model, images = Reversed().eval(), torch.rand(4, 3, 2, 2)
    for pivot in ("stem", "head"):
        assert refine(model, images, pivots=pivot, strategy="residual").improved.all()
    with pytest.raises(fa.errors.SiteError, match="isn't the images"):
        refine(model, images, pivots="body")


def test_a_site_is_checked_once():
    model, images = Drops().eval(), torch.rand(3, 3, 16, 16)
    adapter, seen = fa.wrap(model, labels=["a", "b"]), []
    model.stem.register_forward_hook(lambda *_: seen.append(1))
    counts = []
    for _ in range(3):
        seen.clear()
        adapter.refine(images, TOLD, pivots="stem", strategy="residual", steps=1)
        counts.append(len(seen))
    assert counts == [3, 1, 1]


@pytest.mark.parametrize("strategy", ["newton", "residual", "layerwise"])
def test_batch_normalisation_without_running_statistics_gets_the_whole_batch(strategy):
    torch.manual_seed(0)
    model, images = Normalised(running=False).eval(), torch.rand(4, 3, 16, 16)
    told = fa.Labels([{"a": 1}, {}, {}, {}])
    result = refine(model, images, strategy=strategy)
    assert torch.equal(result.before, model(images))
    result = fa.wrap(model, labels=["a", "b"]).refine(images, told, strategy=strategy)
    assert result.losses.isfinite().all()
    assert result.losses.amin(0)[0] < result.losses[0, 0]


@pytest.mark.parametrize("strategy", ["newton", "residual", "layerwise"])
def test_a_model_exported_for_a_fixed_number_of_images(strategy):
    torch.manual_seed(0)
    images = torch.rand(3, 3, 16, 16)
    model = torch.export.export(Normalised(running=True).eval(), (images,)).module()
    adapter = fa.wrap(model, labels=["a", "b"])
    told = fa.Labels([{"a": 1}, {}, {}])
    result = adapter.refine(images, told, pivots="input", strategy=strategy)
    assert result.losses.amin(0)[0] < result.losses[0, 0]
    with pytest.raises(fa.errors.FeedbackAdapterError):
        adapter.refine(images[:2], fa.Labels({"a": 1}), pivots="input", strategy=strategy)


def test_a_batch_that_is_a_dict_is_the_keywords_or_in_a_tuple_the_argument():
    model, batch = Batch().eval(), {"pixels": torch.rand(2, 3, 16, 16)}
    adapter = fa.wrap(model, labels=["a", "b"])
    assert torch.equal(adapter.predict((batch,)), model(batch))
    assert adapter.refine((batch,), TOLD, strategy="residual").improved.all()
    with untouched(model), pytest.raises(fa.errors.InputError, match=r"gets \(images,\)"):
        adapter.refine({"pixels": batch["pixels"], "size": 3}, TOLD)


def test_what_a_model_raises_on_wrong_images_is_named():
    model = Drops().train()
    for images in (torch.rand(2, 1, 16, 16), torch.rand(2, 3, 1, 1), torch.rand(2, 3)):
        adapter = fa.wrap(model, labels=["a", "b"])
        for call in (adapter.predict, adapter.sites, lambda x, a=adapter: a.refine(x, TOLD)):
            with untouched(model), pytest.raises(fa.errors.InputError, match="Drops raised"):
                call(images)


@pytest.mark.parametrize("pivot", ["stem", "body", "auto", "input"])
@pytest.mark.parametrize("through", [True, False], ids=["through PyTorch's", "without PyTorch's"])
def test_a_model_whose_class_has_a_call_of_its_own(through, pivot):
    model, images = OwnCall(through).eval(), torch.rand(2, 3, 16, 16)
    adapter = fa.wrap(model, labels=["a", "b"])
    assert [site.name for site in adapter.sites(images)] == ["input", "stem", "body", "head"]
    result = adapter.refine(images, TOLD, pivots=pivot, strategy="residual")
    assert torch.equal(result.before, model(images))
    assert (result.losses.amin(0) < result.losses[0]).all()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("aligned", [True, False], ids=["at the end", "anywhere"])
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no norm"])
def test_padded_tokens_count_as_in_evaluation_mode(norm, aligned):
    torch.manual_seed(0)
    model, images = Padded(norm).eval(), torch.rand(3, 3, 32, 32)
    padded = torch.zeros(3, 16, dtype=torch.bool)
    padded[0, 9:] = True
    padded[1, 5 if aligned else 4 : 16 if aligned else 9] = True
    with torch.no_grad():
        expected = model(images, padded)
    adapter = fa.wrap(model, labels=["a", "b"])
    torch.testing.assert_close(adapter.predict((images, padded)), expected)
    answers = []
    for pivot in ("patches", "encoder.layers.0.linear1", "encoder"):
        result = adapter.refine((images, padded), TOLD, pivots=pivot, strategy="residual")
        torch.testing.assert_close(result.before, expected)
        assert (result.losses.amin(0) < result.losses[0]).all()
    with frozen(model), torch.no_grad():  # another thread's model keeps its fused path
        thread = threading.Thread(target=lambda: answers.append(model(images, padded).detach()))
        thread.start()
        thread.join()
    torch.testing.assert_close(answers[0], expected)
