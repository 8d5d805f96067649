"""Layers that run in both directions, and the rules that make them from a model's modules."""

from fa_cnnf.layers.base import Layer
from fa_cnnf.layers.chains import Chain, Fork
from fa_cnnf.layers.linear import Affine, Bias, Conv, Flatten, Linear
from fa_cnnf.layers.norms import EPSILON, FeedbackNorm, InstanceNorm, rms_norm
from fa_cnnf.layers.pools import AdaPool, AdaptiveAveragePool, AveragePool
from fa_cnnf.layers.relu import AdaReLU
from fa_cnnf.layers.state import State

__all__ = [
    "EPSILON", "AdaPool", "AdaReLU", "AdaptiveAveragePool", "Affine", "AveragePool", "Bias",
    "Chain", "Conv", "FeedbackNorm", "Flatten", "Fork", "InstanceNorm", "Layer", "Linear",
    "State", "rms_norm",
]  # fmt: skip
