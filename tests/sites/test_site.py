"""Sites as addresses, what is measured there, and their names of before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import feedback_adapter as fa
from feedback_adapter import sites
from feedback_adapter.sites import Site


def test_old_names_still_work_and_say_what_they_are_called_now():
    with pytest.warns(DeprecationWarning, match="frozen"):
        assert sites.borrowed is sites.frozen
    with pytest.warns(DeprecationWarning, match=r"Site\.of"):
        assert sites.site.parse_site("layer#2:left") == ("layer", 2, "left")
    with pytest.raises(AttributeError, match="lent"):
        _ = sites.lent


def test_a_site_is_an_address_and_an_info_what_was_measured_there(net, images):
    adapter = fa.wrap(net, labels=list("abcd"))
    info = next(site for site in adapter.sites(images) if site.name == "body")
    assert (info.shape, info.layout) == ((3, 8, 8, 8), "NCHW")
    assert sites.Site.of(info) == sites.Site("body") == sites.Site.of("body")
    assert not hasattr(sites.Site("body"), "shape")


@given(st.text("ab:#\\.01", max_size=8), st.integers(0, 3), st.text("a:#1.\\", max_size=4))
def test_every_address_is_read_back_from_its_name(module, call, selector):
    site = Site(module, call, selector)
    assert Site.of(site.name) == site


class Odd(nn.Module):
    """Modules and outputs whose names hold the signs of site names."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 2)
        self.parts = nn.ModuleDict({name: Two() for name in ("a", "a#1", "a:0", "x#0", "b\\")})

    def forward(self, x):
        y = self.stem(x)
        for part in self.parts.values():
            y = sum(part(y).values())
        return self.head(y.relu().mean((2, 3)))


class Two(nn.Module):
    def forward(self, x):
        return {1: x * 0.5, "1": x * 0.7, "k.l:#2": x * 0.1}


def test_odd_names_are_unique_and_lead_back():
    torch.manual_seed(0)
    model, images = Odd().eval(), torch.rand(2, 3, 16, 16)
    adapter = fa.wrap(model, labels=["a", "b"])
    sites = adapter.sites(images)
    names = [site.name for site in sites]
    assert len(set(names)) == len(names) == 18
    told, options = fa.Labels({"a": 1}), {"strategy": "residual", "steps": 2}
    for site in sites:
        by_name = adapter.refine(images, told, pivots=site.name, **options)
        by_site = adapter.refine(images, told, pivots=site, **options)
        assert Site.of(by_name.pivots[0]) == Site.of(site)
        assert torch.equal(by_name.after, by_site.after)
        assert (by_name.losses.amin(0) < by_name.losses[0]).all()
