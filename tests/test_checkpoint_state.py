"""What a model's state and an adapter's defaults may hold, and come back as."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError, OptionsError
from feedback_adapter.strategies.solvers import solver_note, solver_of
from feedback_adapter.testing import LABELS, TinyNet, tiny_images

pytestmark = pytest.mark.filterwarnings("ignore:.* holds the weights of a .*, but not how")


class Graph(nn.Module):
    """Labels that tell each other, over a sparse matrix that is a buffer."""

    def __init__(self, layout: torch.layout, links: int = 2) -> None:
        super().__init__()
        edges = torch.eye(4)
        edges[0, :links] = 0.5
        self.net = TinyNet(seed=links)
        self.register_buffer("edges", edges.to_sparse(layout=layout))

    def forward(self, x):
        return torch.sparse.mm(self.edges, self.net(x).T).T


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_sparse_buffers_come_back_as_they_were(tmp_path, layout):
    adapter = fa.wrap(Graph(layout, links=3), labels=LABELS)
    loaded = fa.load(adapter.save(tmp_path / "graph"), model=Graph(layout, links=2))
    assert loaded.model.edges.layout == layout
    assert torch.equal(loaded.model.edges.to_dense(), adapter.model.edges.to_dense())
    assert torch.equal(loaded.predict(tiny_images(2)), adapter.predict(tiny_images(2)))


class Counting(nn.Module):
    """Extra state: what a module keeps beside its tensors."""

    def __init__(self, seen: Any = None) -> None:
        super().__init__()
        self.net, self.seen = TinyNet(), seen

    def forward(self, x):
        return self.net(x)

    def get_extra_state(self):
        return self.seen

    def set_extra_state(self, state):
        self.seen = state


@pytest.mark.parametrize(
    "seen", [{"images": 3, "share": 0.5, "of": ["a", None]}, torch.arange(3), "text"]
)
def test_extra_state_comes_back(tmp_path, seen):
    folder = fa.wrap(Counting(seen), labels=LABELS).save(tmp_path / "extra")
    found = fa.load(folder, model=Counting()).model.seen
    assert torch.equal(found, seen) if isinstance(seen, torch.Tensor) else found == seen


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"a", "b"}, "_extra_state' is a set"),
        ((1, 2), "holds a tuple that a checkpoint would change"),
        ({1: "a"}, "holds a dict that a checkpoint would change"),
        (float("nan"), "finite numbers only"),
    ],
)
def test_extra_state_that_would_change_is_refused_and_leaves_nothing(tmp_path, seen, said):
    with pytest.raises(CheckpointError, match=said):
        fa.wrap(Counting(seen), labels=LABELS).save(tmp_path / "extra")
    assert not list(tmp_path.iterdir())


class Odd(nn.Module):
    def __init__(self, odd: torch.Tensor) -> None:
        super().__init__()
        self.net = TinyNet()
        self.register_buffer("odd", odd)

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (torch.empty(3, device="meta"), "'odd' is on the meta device"),
        (torch.zeros(2, dtype=torch.complex128), "can't hold these weights: .*complex128"),
    ],
)
def test_tensors_that_no_file_can_hold_are_refused_and_leave_nothing(tmp_path, odd, said):
    with pytest.raises(CheckpointError, match=said):
        fa.wrap(Odd(odd), labels=LABELS).save(tmp_path / "odd")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int16, torch.bfloat16])
def test_other_dtypes_come_back(tmp_path, dtype):
    odd = torch.tensor([0, 1, 1]).to(dtype)
    folder = fa.wrap(Odd(odd), labels=LABELS).save(tmp_path / "odd")
    found = fa.load(folder, model=Odd(torch.zeros(3, dtype=dtype))).model.odd
    assert found.dtype == dtype
    assert torch.equal(found, odd)


# ---- solvers among the defaults ----


@pytest.mark.parametrize("solver", [fa.LBFGS(), fa.LBFGS(history=3), fa.Adam(betas=(0.5, 0.9))])
def test_a_solver_among_the_defaults_comes_back(tmp_path, solver):
    defaults = fa.Defaults(
        "residual", ("stem",), {"solver": solver}, others={"layerwise": {"solver": solver}}
    )
    adapter = fa.Adapter(TinyNet(), {"output": fa.Output(LABELS)}, defaults=defaults)
    loaded = fa.load(adapter.save(tmp_path / "solver"), model=TinyNet())
    told = fa.Labels({LABELS[0]: 1})
    for strategy in (None, "layerwise"):
        there = loaded.refine(tiny_images(2), told, strategy=strategy)
        here = adapter.refine(tiny_images(2), told, strategy=strategy)
        assert torch.equal(there.losses, here.losses)
    again = fa.load(loaded.save(tmp_path / "again"), model=TinyNet())
    assert again.defaults == loaded.defaults


def test_notes_of_solvers():
    assert solver_note(fa.SGD(momentum=0.0)) == "gradient"
    assert solver_note(fa.SGD(momentum=0.5)) == {"name": "momentum", "momentum": 0.5}
    assert solver_of({"name": "adam", "betas": [0.5, 0.9]}) == fa.Adam(betas=(0.5, 0.9))
    assert solver_of("adam") == "adam"
    for wrong in ({"name": "adma"}, {"momentum": 1}, {"name": "adam", "beta": 1}):
        with pytest.raises(OptionsError, match="solver"):
            solver_of(wrong)


@dataclasses.dataclass(frozen=True)
class Mine(fa.Solver):
    def step(self, state, gradient, step_size):
        return -step_size * gradient


def test_a_solver_of_ones_own_cannot_be_saved(tmp_path):
    adapter = fa.wrap(TinyNet(), labels=LABELS)
    adapter.defaults = fa.Defaults("residual", options={"solver": Mine()})
    with pytest.raises(CheckpointError, match=r"refine.options.solver is a Mine"):
        adapter.save(tmp_path / "mine")
    assert not list(tmp_path.iterdir())
