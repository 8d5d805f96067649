"""Every strategy keeps its promises on every kind of output, with every kind of evidence."""

import pytest
import torch

import feedback_adapter as fa
from feedback_adapter.builtin import feedback_adapter_strategies
from feedback_adapter.testing import check_strategy, tiny_adapter

ADAPTERS = {
    "multilabel": lambda: tiny_adapter(),
    "multiclass": lambda: tiny_adapter("multiclass"),
    "two outputs": lambda: tiny_adapter(second="multiclass"),
    "multiclass and multilabel": lambda: tiny_adapter("multiclass", second="multilabel"),
}


@pytest.mark.parametrize("spec", feedback_adapter_strategies(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", ADAPTERS)
def test_conformance(name, spec):
    adapter = ADAPTERS[name]()
    if spec.uses == "statistics":
        if adapter.outputs["output"].kind != "multilabel":
            pytest.skip("label statistics are of multilabel outputs")
        p = torch.rand(50, 4)
        adapter.fit_prior(p, (p > 0.5).float())
    block = "net.block" if len(adapter.outputs) > 1 else "block"
    check_strategy(spec, adapter=adapter, pivots=block)


PETS = {"pet": ["cat", "dog"], "thing": ["ball", "snow"]}
EVIDENCE = {
    "coarse": lambda each: fa.Coarse(each("pet", "thing"), hierarchy=PETS, output="output"),
    "text": lambda each: fa.Text(each("two dogs", "a cat in snow"), output="output"),
    "tensors": lambda each: fa.Labels.from_tensors(
        torch.tensor(each([1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [torch.nan] * 4)), output="output"
    ),
    "joined": lambda each: (
        fa.Coarse(each("pet", "thing"), hierarchy=PETS, output="output")
        & fa.Labels({"ball": each(0, 0)})
    ),
}


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("name", ADAPTERS)
def test_conformance_with_other_evidence(name, evidence):
    adapter = ADAPTERS[name]()

    def make(batch):
        def each(even, odd, nothing=None):
            return [nothing if i % 3 == 2 else (even, odd)[i % 2] for i in range(batch)]

        return EVIDENCE[evidence](each)

    block = "net.block" if len(adapter.outputs) > 1 else "block"
    specs = {spec.name: spec for spec in feedback_adapter_strategies()}
    check_strategy(specs["residual"], adapter=adapter, pivots=block, evidence=make)
