"""fashion-cnnf and its twin fashion-cnn, plain and adversarial."""

from __future__ import annotations

import dataclasses

from cnnf_recipe import Recipe, command
from cnnf_training import Settings

WITH = Settings()
WITHOUT = dataclasses.replace(WITH, steps=0)
HARD = {"adversarial": True}


def recipe(name: str, summary: str, settings: Settings) -> Recipe:
    return Recipe(name, "zoo/recipes/fashion_cnnf.py", summary, "fashion", settings)


RECIPES = {
    r.name: r
    for r in (
        recipe("fashion-cnnf", "Clothes in 28 x 28, with recurrent feedback.", WITH),
        recipe(
            "fashion-cnn",
            "Clothes in 28 x 28: the twin of fashion-cnnf, without feedback.",
            WITHOUT,
        ),
        recipe(
            "fashion-cnnf-adversarial",
            "Clothes in 28 x 28, with recurrent feedback, trained on attacked images.",
            dataclasses.replace(WITH, **HARD),
        ),
        recipe(
            "fashion-cnn-adversarial",
            "Clothes in 28 x 28: the twin of fashion-cnnf-adversarial, without feedback.",
            dataclasses.replace(WITHOUT, **HARD),
        ),
    )
}

if __name__ == "__main__":
    command(RECIPES)
