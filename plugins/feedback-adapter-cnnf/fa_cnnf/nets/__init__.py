"""The two networks of the published experiments, and a small one, as plain modules."""

from fa_cnnf.nets.fashion import Bias, FashionNet, InstanceRMSNorm
from fa_cnnf.nets.residual import ResidualPair, SmallResNet
from fa_cnnf.nets.wide_resnet import PreactBlock, WideResNet

__all__ = [
    "Bias",
    "FashionNet",
    "InstanceRMSNorm",
    "PreactBlock",
    "ResidualPair",
    "SmallResNet",
    "WideResNet",
]
