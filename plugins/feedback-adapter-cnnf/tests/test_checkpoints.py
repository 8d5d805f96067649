"""Checkpoints of CNN-F: the zoo's, and what is refused."""

import pytest
import torch

import fa_cnnf
import feedback_adapter as fa
from fa_cnnf.checkpoints import build
from feedback_adapter.errors import CheckpointError, SiteError
from feedback_adapter.plugins import plugins

NAMES = [f"fashion-{kind}{how}" for kind in ("cnn", "cnnf") for how in ("", "-adversarial")]
installed = {spec.name for spec in plugins().all("checkpoints")}
needs_zoo = pytest.mark.skipif(not set(NAMES) <= installed, reason="the zoo isn't installed")


@needs_zoo
@pytest.mark.parametrize("name", NAMES)
def test_the_zoos_checkpoints_load(name):
    adapter = fa_cnnf.load(name)
    assert adapter.model.steps == (1 if "cnnf" in name else 0)
    assert adapter.model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert adapter.labels[9] == "ankle-boot"


@needs_zoo
def test_evidence_moves_a_loaded_checkpoint():
    adapter = fa_cnnf.load("fashion-cnnf-adversarial")
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = adapter.refine(images, fa.Labels({"ankle-boot": 1}))
    assert result.pivots == ("relu2",)
    before, after = (o.softmax(-1)[:, 9] for o in (result.before, result.after))
    assert (after > before).all()


def test_a_saved_model_comes_back_the_same(tmp_path):
    model = build("wrn-10-1", {"site": "group1.0", "steps": 2}).eval()
    adapter = fa.wrap(model, labels=[str(n) for n in range(10)], kind="multiclass")
    how = fa.Architecture("fa_cnnf", "wrn-10-1", {"site": "group1.0", "steps": 2})
    folder = adapter.save(tmp_path / "net", architecture=how)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        for load in (fa_cnnf.load, fa.load):
            torch.testing.assert_close(load(folder).model(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("net", ["os.system", "wrn-40", "wrn-a-2", "wrn-41-2", ""])
def test_only_known_nets_are_built(net):
    with pytest.raises((CheckpointError, fa.FeedbackAdapterError), match=r"possible|can't build"):
        build(net, {})


def test_an_automatic_pivot_is_one_that_works():
    """A pivot inside the loop would skip a first pass that the second needs."""
    model = build("wrn-10-1", {"site": "group1.0", "steps": 1}).eval()
    adapter = fa.wrap(model, labels=[str(n) for n in range(10)], kind="multiclass")
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    result = adapter.refine(x, fa.Labels({"3": 1}), strategy="residual", pivots="auto", steps=1)
    assert result.pivots[0].startswith("bottom")
    with pytest.raises(SiteError, match="Choose 'input' or 'bottom'"):
        adapter.refine(x, fa.Labels({"3": 1}), strategy="residual", pivots="segments.0#0")


@pytest.mark.filterwarnings("ignore:.* holds the weights of a .*, but not how")
def test_other_checkpoints_are_refused(tmp_path):
    model = build("fashion", {"site": "relu2"})
    fa.wrap(model, labels=[str(n) for n in range(10)], kind="multiclass").save(tmp_path / "net")
    with pytest.raises(CheckpointError, match="not a checkpoint of CNN-F"):
        fa_cnnf.load(tmp_path / "net")
