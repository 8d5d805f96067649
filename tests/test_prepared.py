"""Refining a prepared batch: the same numbers, without another forward pass."""

import threading

import pytest
import torch
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import InputError, SiteError

LABELS = list("abcd")
STRATEGIES = ("residual", "layerwise", "newton", "posterior", "auto")


class Net(nn.Module):
    """A small network with a skip around its second stage, which counts its early passes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.last = nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, len(LABELS))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = torch.relu_(self.body(x) + x)
        return self.head((self.last(x) + x).mean((2, 3)))


@pytest.fixture
def adapter() -> fa.Adapter:
    torch.manual_seed(0)
    adapter = fa.wrap(Net().eval(), labels=LABELS)
    targets = (torch.rand(40, 4) < 0.5).float()
    adapter.fit_prior(torch.rand(40, 4), targets)
    return adapter


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(6, 3, 16, 16)


def evidence(seed: int = 0) -> fa.Evidence:
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(6, 4, generator=generator) < 0.6
    known[:, seed % 4] = True
    return fa.Labels.from_tensors((torch.rand(6, 4, generator=generator) < 0.5).float(), known)


def check_same(found: fa.Refinement, expected: fa.Refinement) -> None:
    for name in expected.outputs_after:
        assert torch.equal(found.outputs_before[name], expected.outputs_before[name])
        assert torch.equal(found.outputs_after[name], expected.outputs_after[name])
    assert torch.equal(found.losses, expected.losses)
    assert torch.equal(found.steps, expected.steps)
    assert found.pivots == expected.pivots
    assert found.strategy == expected.strategy


@pytest.mark.parametrize("pivots", ["stem", "body", "input", ["stem", "last"], ["last", "input"]])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_are_those_of_the_images_bit_for_bit(adapter, images, strategy, pivots):
    prepared = adapter.prepare(images, pivots=pivots)
    for seed in (0, 1, 0):
        told = evidence(seed)
        expected = adapter.refine(images, told, strategy=strategy, pivots=pivots)
        check_same(adapter.refine(prepared, told, strategy=strategy), expected)


@pytest.mark.parametrize("strategy", ["residual", "layerwise"])
def test_images_that_stop_early_leave_a_prepared_batch_as_they_leave_any(adapter, images, strategy):
    options = {"steps": 4, "patience": 1, "tolerance": 0.0}
    for pivots in ("stem", ["stem", "last"], "body"):
        prepared = adapter.prepare(images, pivots=pivots)
        known = torch.ones(6, 4, dtype=torch.bool)
        known[:4] = False  # where nothing is known, nothing moves
        told = fa.Labels.from_tensors(torch.ones(6, 4), known)
        expected = adapter.refine(images, told, strategy=strategy, pivots=pivots, **options)
        assert len(set(expected.steps.tolist())) > 1
        check_same(adapter.refine(prepared, told, strategy=strategy, **options), expected)


def test_some_of_the_prepared_pivots(adapter, images):
    prepared = adapter.prepare(images, pivots=["stem", "body", "last"])
    for pivots in ("last", "stem", ["body", "last"], ["stem", "last"]):
        for strategy in STRATEGIES:
            expected = adapter.refine(images, evidence(), strategy=strategy, pivots=pivots)
            found = adapter.refine(prepared, evidence(), strategy=strategy, pivots=pivots)
            check_same(found, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_stem_never_runs_again(adapter, images, strategy):
    prepared = adapter.prepare(images, pivots=["body", "last"])
    runs = []
    handle = adapter.model.stem.register_forward_hook(lambda *_: runs.append(1))
    options = {"patience": None} if strategy in ("residual", "layerwise") else {}
    adapter.refine(prepared, evidence(), strategy=strategy, **options)
    adapter.refine(prepared, evidence(1), strategy=strategy, pivots="last", **options)
    assert torch.equal(adapter.predict(prepared), adapter.predict(images))
    handle.remove()
    assert len(runs) == 1, "the prediction of the images"


def test_predictions_are_copies(adapter, images):
    prepared = adapter.prepare(images, pivots="body")
    expected = adapter.predict(images)
    adapter.predict(prepared).zero_()
    adapter.refine(prepared, evidence(), strategy="posterior").outputs_after["output"].zero_()
    assert torch.equal(adapter.predict(prepared), expected)


def test_several_threads_refine_one_prepared_batch(adapter, images):
    prepared = adapter.prepare(images, pivots=["stem", "last"])
    jobs = [(strategy, seed) for strategy in STRATEGIES for seed in range(3)]
    expected = {
        job: adapter.refine(images, evidence(job[1]), strategy=job[0], pivots=["stem", "last"])
        for job in jobs
    }
    found, errors = {}, []

    def work(mine):
        try:
            for strategy, seed in mine:
                found[strategy, seed] = adapter.refine(prepared, evidence(seed), strategy=strategy)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(jobs[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for job in jobs:
        check_same(found[job], expected[job])


def test_nothing_is_left_on_the_model(adapter, images):
    model = adapter.model.train()
    model.stem[0].weight.requires_grad_(False)
    before = {n: (dict(vars(m)), m.training) for n, m in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepared = adapter.prepare(images, pivots="body")
    adapter.refine(prepared, evidence(), strategy="residual")
    assert {n: (dict(vars(m)), m.training) for n, m in model.named_modules()} == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters())


def test_what_a_prepared_batch_says_of_itself(adapter, images):
    prepared = adapter.prepare(images, pivots="body")
    skip = activation = 6 * 8 * 8 * 8 * 4  # what goes around the pivot, and the pivot's
    assert prepared.nbytes == skip + activation + 6 * 4 * 4
    assert prepared.batch == 6
    assert repr(prepared) == "Prepared(batch=6, pivots=['body'], 24.1 KiB)"


def test_changed_weights_are_an_error_that_names_one(adapter, images):
    prepared = adapter.prepare(images, pivots="body")
    with torch.no_grad():
        adapter.model.head.bias.add_(1)
    with pytest.raises(InputError, match=r"'head\.bias' \(of 1 tensors\) has changed since"):
        adapter.refine(prepared, evidence())
    with pytest.raises(InputError, match="prepare"):
        adapter.predict(prepared)
    prepared = adapter.prepare(images, pivots="body")
    adapter.model.load_state_dict(adapter.model.state_dict())
    with pytest.raises(InputError, match="of 12 tensors"):
        adapter.refine(prepared, evidence())


def test_another_model_or_pivot_is_an_error(adapter, images):
    prepared = adapter.prepare(images, pivots="body")
    other = fa.wrap(Net().eval(), labels=LABELS)
    with pytest.raises(InputError, match="another Net"):
        other.refine(prepared, evidence())
    with pytest.raises(SiteError, match=r"'stem' is not among the pivots .*pivots=\['body', 'ste"):
        adapter.refine(prepared, evidence(), pivots="stem")
    with pytest.raises(SiteError, match="Did you mean 'body'"):
        adapter.prepare(images, pivots="bode")
    with pytest.raises(InputError, match="no image"):
        adapter.prepare(images[:0])


def test_two_adapters_of_one_model_share_a_prepared_batch(adapter, images):
    prepared = adapter.prepare(images, pivots="body")
    other = fa.wrap(adapter.model, labels=list("wxyz"))
    told = fa.Labels({"w": 1})
    check_same(
        other.refine(prepared, told, strategy="newton"),
        other.refine(images, told, strategy="newton", pivots="body"),
    )


def test_what_is_normalised_otherwise_or_shown_other_images_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    adapter, images = fa.wrap(model.eval(), labels=["a", "b"]), torch.rand(2, 3, 8, 8)
    told = fa.Labels({"a": 1})

    def change_buffer():
        model[1].running_mean += 1

    def train():
        model.train()(images)
        model.eval()

    def replace_buffer():
        model[1].running_var = model[1].running_var * 2

    def write_images():
        images.mul_(2)

    for change in (change_buffer, train, replace_buffer, write_images):
        prepared = adapter.prepare(images)
        adapter.refine(prepared, told)
        change()
        with pytest.raises(InputError, match="has changed since"):
            adapter.refine(prepared, told)
    prepared = adapter.prepare(images)
    model.load_state_dict(dict(model.named_buffers()), strict=False)
    adapter.refine(prepared, told)  # the same numbers again


def test_a_model_that_writes_its_buffers_stays_prepared():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(12, 8), nn.Linear(8, 2)
            self.register_buffer("calls", torch.zeros(2))

        def forward(self, x):
            self.calls += torch.tensor([1, torch.nan])
            return self.head(self.stem(x.flatten(1)).relu())

    adapter, told = fa.wrap(Counts().eval(), labels=["a", "b"]), fa.Labels({"a": 1})
    prepared = adapter.prepare(torch.rand(2, 3, 2, 2))
    first = adapter.refine(prepared, told)
    assert torch.equal(first.after, adapter.refine(prepared, told).after)
