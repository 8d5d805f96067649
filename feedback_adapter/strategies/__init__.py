"""Refining strategies: one file each."""

from feedback_adapter.strategies.base import Facts, Problem, Strategy
from feedback_adapter.strategies.clamp import Clamp, ClampOptions
from feedback_adapter.strategies.layerwise import Layerwise, LayerwiseOptions
from feedback_adapter.strategies.newton import Newton, NewtonOptions
from feedback_adapter.strategies.posterior import Posterior, PosteriorOptions
from feedback_adapter.strategies.residual import Residual, ResidualOptions
from feedback_adapter.strategies.solvers import LBFGS, SGD, Adam, Solver

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Clamp",
    "ClampOptions",
    "Facts",
    "Layerwise",
    "LayerwiseOptions",
    "Newton",
    "NewtonOptions",
    "Posterior",
    "PosteriorOptions",
    "Problem",
    "Residual",
    "ResidualOptions",
    "Solver",
    "Strategy",
]
