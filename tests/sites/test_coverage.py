"""A part of the sweep over model families; `make coverage` runs all of it."""

import pytest

FAMILIES = [
    "crossvit",  # two patch_embed, containers that are never called
    "dla",  # trees of modules
    "edgenext",
    "efficientnet",
    "ghostnet",
    "lcnetv2",  # in-place on what a pivot returns
    "mambaout",  # NHWC
    "mobilenetv3",
    "repghost",
    "resnet",
    "shvit",
    "starnet",
    "torchvision.lraspp",  # a dict of maps
    "torchvision.shufflenet_v2",
    "torchvision.ssdlite.backbone",  # an ordered dict of maps
]


@pytest.mark.coverage
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore")  # what models say about themselves
def test_family(conformance, name):
    family = conformance.FAMILIES[name]
    row = conformance.check(*conformance.build(family), places=5)
    assert not row["reason"]
    assert row["exact"]
    assert row["gradient"]
    assert row["refined"]
    assert row["restored"]


def test_every_family_has_a_model(conformance):
    import timm

    assert set(timm.list_modules()) <= set(conformance.FAMILIES)
