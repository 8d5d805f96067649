"""Every key of the golden vectors, and the identity with autograd."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import fa_cnnf
from fa_cnnf.loops.tied import TiedLoop
from fa_cnnf.nets import InstanceRMSNorm

SITES = {
    "mnist": ("input", "relu1", "relu2"),
    "wrn": ("input", "group1.0", "group1.1"),
}
CASES = [(net, index) for net, sites in SITES.items() for index in range(len(sites))]


@pytest.mark.parametrize(("net", "index"), CASES)
def test_golden(golden, golden_nets, net, index):
    logits, recon = golden[f"{net}/ind{index}/logits"], golden[f"{net}/ind{index}/recon"]
    loop = fa_cnnf.convert(golden_nets[net], SITES[net][index], len(recon))
    with torch.no_grad():
        unroll = loop.unroll(torch.from_numpy(golden[f"{net}/x"]))
    assert np.abs(unroll.logits.numpy() - logits).max() < 1e-8
    found = torch.stack(unroll.reconstructions)[:, :, : recon.shape[2]].numpy()
    assert np.abs(found - recon).max() < 1e-8


def test_every_key_is_tested(golden):
    tested = {f"{net}/ind{index}/{part}" for net, index in CASES for part in ("logits", "recon")}
    assert tested | {"mnist/x", "wrn/x", "meta"} == set(golden)


@pytest.mark.parametrize(("net", "index"), CASES)
def test_first_feedback_without_norms_is_the_vector_jacobian_product(
    golden, golden_nets, net, index
):
    x, site = torch.from_numpy(golden[f"{net}/x"]), SITES[net][index]
    loop = fa_cnnf.convert(golden_nets[net], site, 1, norms=False)
    with torch.no_grad():
        feedback = loop.unroll(x).reconstructions[0]
    plain = copy.deepcopy(golden_nets[net])
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, InstanceRMSNorm):
                setattr(module, name, nn.Identity())
    tied = TiedLoop(plain, site, 1, norms=False).unroll(x).reconstructions[0]
    # The published feedback of the 8 x 8 average pool is an upsampling without the 1/64.
    factor = 64 if net == "wrn" else 1
    assert (feedback - factor * tied).abs().max() == 0.0
