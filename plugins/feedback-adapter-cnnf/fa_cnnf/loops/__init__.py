"""Three loops: CNN-F's own, tied feedback for any model, and decoders on a frozen one."""

from fa_cnnf.loops.base import READOUTS, Loop, Unroll, read_out
from fa_cnnf.loops.cnnf import CNNF
from fa_cnnf.loops.decoder import DecoderLoop, decoders
from fa_cnnf.loops.decoder_fit import fit_decoders, fit_gammas
from fa_cnnf.loops.tied import TiedLoop

__all__ = [
    "CNNF",
    "READOUTS",
    "DecoderLoop",
    "Loop",
    "TiedLoop",
    "Unroll",
    "decoders",
    "fit_decoders",
    "fit_gammas",
    "read_out",
]
