"""Recurrent generative feedback (CNN-F) for any convolutional net.

Source: 'Neural Networks with Recurrent Generative Feedback', NeurIPS 2020.
"""

from fa_cnnf.checkpoints import load
from fa_cnnf.convert import convert, sites
from fa_cnnf.decoder import DecoderLoop, decoders
from fa_cnnf.decoder_fit import fit_decoders, fit_gammas
from fa_cnnf.errors import DecoderError, FeedbackError, UnsupportedModuleError
from fa_cnnf.loop import CNNF, Unroll, read_out
from fa_cnnf.rules import SUPPORTED
from fa_cnnf.state import State

__all__ = [
    "CNNF",
    "SUPPORTED",
    "DecoderError",
    "DecoderLoop",
    "FeedbackError",
    "State",
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
