"""Choosing pivots, step size and number of steps from what is known alone."""

from feedback_adapter.pivot_search.race import Choice, Trial, choose_pivots

__all__ = ["Choice", "Trial", "choose_pivots"]
