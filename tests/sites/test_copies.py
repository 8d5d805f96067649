"""Copies and pickles of a model that is wrapped, also while it is held."""

import copy
import io
import threading

import torch

import feedback_adapter as fa
from feedback_adapter.sites import frozen

EVIDENCE = fa.Labels({"a": 1, "b": 0})


def refine(model, images, pivots="body"):
    return fa.wrap(model, labels=list("abcd")).refine(images, EVIDENCE, pivots=pivots)


def test_deepcopy_and_pickle_while_and_after_it_is_wrapped(net, images):
    adapter = fa.wrap(net, labels=list("abcd"))
    expected = adapter.refine(images, EVIDENCE, pivots="body").after

    def copies():
        yield copy.deepcopy(net)
        yield copy.deepcopy(adapter).model
        with io.BytesIO() as file:
            torch.save(net.state_dict(), file)
        twin = copy.copy(net)
        yield twin

    assert vars(net).keys() == vars(type(net)()).keys()
    for model in copies():
        assert torch.equal(refine(model, images).after, expected)
    with frozen(net):
        inside = copy.deepcopy(net)
    assert torch.equal(refine(inside, images).after, expected)


class Spying(fa.Labels):
    """Evidence that saves the model as a whole each time its loss is asked for."""

    def __init__(self, values, model):
        super().__init__(values)
        self.model, self.saved = model, []

    def bind(self, specs, batch):
        bound = super().bind(specs, batch)
        loss = bound.loss

        def spy(outputs):
            self.saved.append(saved(self.model))
            return loss(outputs)

        bound.loss = spy
        return bound


def saved(model) -> bytes:
    with io.BytesIO() as file:
        torch.save(model, file)
        return file.getvalue()


def test_the_whole_model_is_pickled_inside_a_callback(net, images):
    before = saved(net.requires_grad_(False))  # as a refinement holds it
    told = Spying({"a": 1, "b": 0}, net)
    fa.wrap(net, labels=list("abcd")).refine(images, told, pivots="body")
    assert len(told.saved) > 2
    assert set(told.saved) == {before}
    assert saved(net) == before


def test_the_whole_model_is_pickled_in_another_thread(net, images):
    net.requires_grad_(False)
    before, found, stop = saved(net), set(), threading.Event()

    def save():
        while not stop.is_set():
            found.add(saved(net))

    thread = threading.Thread(target=save)
    thread.start()
    for _ in range(5):
        refine(net, images, "stem")
    stop.set()
    thread.join()
    assert found == {before}


def test_a_model_that_trains_is_pickled_as_before_when_refined(net, images):
    before = saved(net.train())
    told = Spying({"a": 1, "b": 0}, net)
    adapter = fa.wrap(net, labels=list("abcd"))
    adapter.refine(images, told, pivots="body")
    assert saved(net) == before
    assert saved(adapter.model) == before
    assert set(told.saved) == {saved(net.eval().requires_grad_(False))}
