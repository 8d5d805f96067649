"""Attacks in the maximum norm, each on its own: short, and tested where the optimum is known."""

from fa_cnnf.attacks.apgd import apgd, apgd_targeted
from fa_cnnf.attacks.base import LOSSES, Ball, Objective, Worst
from fa_cnnf.attacks.pgd import pgd
from fa_cnnf.attacks.spsa import spsa
from fa_cnnf.attacks.square import square

__all__ = [
    "LOSSES",
    "Ball",
    "Objective",
    "Worst",
    "apgd",
    "apgd_targeted",
    "pgd",
    "spsa",
    "square",
]
