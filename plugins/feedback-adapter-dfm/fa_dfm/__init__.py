"""Deep feedback models: networks that look again, and listen while they do.

Source: 'Deep Feedback Models' (arXiv 2509.15905), whose loop is changed where measurements
asked for it.
"""

from fa_dfm.convert import convert
from fa_dfm.errors import ConversionError, KnownError
from fa_dfm.known import Known
from fa_dfm.network import DFM, Unroll
from fa_dfm.receptive_field import ReceptiveField
from fa_dfm.state import State

__all__ = [
    "DFM",
    "ConversionError",
    "Known",
    "KnownError",
    "ReceptiveField",
    "State",
    "Unroll",
    "convert",
]
