"""A generative model of a network's activations, and the backward pass through it."""

from fa_backward.errors import BackwardError
from fa_backward.generative import Activations
from fa_backward.model import GenerativeModel, Instance
from fa_backward.place import Place
from fa_backward.published import Published
from fa_backward.search import Hypotheses, SearchOptions, search

__all__ = [
    "Activations",
    "BackwardError",
    "GenerativeModel",
    "Hypotheses",
    "Instance",
    "Place",
    "Published",
    "SearchOptions",
    "search",
]
