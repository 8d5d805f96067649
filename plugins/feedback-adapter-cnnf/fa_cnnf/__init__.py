"""Recurrent generative feedback (CNN-F) for any convolutional net.

Source: 'Neural Networks with Recurrent Generative Feedback', NeurIPS 2020.
"""

from fa_cnnf.checkpoints import load
from fa_cnnf.convert import convert, sites
from fa_cnnf.errors import DecoderError, FeedbackError, UnsupportedModuleError
from fa_cnnf.layers.state import State
from fa_cnnf.loops import (
    CNNF,
    DecoderLoop,
    TiedLoop,
    Unroll,
    decoders,
    fit_decoders,
    fit_gammas,
    read_out,
)
from fa_cnnf.rules import SUPPORTED

__all__ = [
    "CNNF",
    "SUPPORTED",
    "DecoderError",
    "DecoderLoop",
    "FeedbackError",
    "State",
    "TiedLoop",
    "Unroll",
    "UnsupportedModuleError",
    "convert",
    "decoders",
    "fit_decoders",
    "fit_gammas",
    "load",
    "read_out",
    "sites",
]
