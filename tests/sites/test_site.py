"""Sites as addresses, what is measured there, and their names of before."""

import pytest

import feedback_adapter
from feedback_adapter import sites


def test_old_names_still_work_and_say_what_they_are_called_now():
    with pytest.warns(DeprecationWarning, match="frozen"):
        assert sites.borrowed is sites.frozen
    with pytest.warns(DeprecationWarning, match=r"Site\.of"):
        assert sites.site.parse_site("layer#2:left") == ("layer", 2, "left")
    with pytest.raises(AttributeError, match="lent"):
        _ = sites.lent


def test_a_site_is_an_address_and_an_info_what_was_measured_there(net, images):
    adapter = feedback_adapter.wrap(net, labels=list("abcd"))
    info = next(site for site in adapter.sites(images) if site.name == "body")
    assert (info.shape, info.layout) == ((3, 8, 8, 8), "NCHW")
    assert sites.Site.of(info) == sites.Site("body") == sites.Site.of("body")
    assert not hasattr(sites.Site("body"), "shape")
