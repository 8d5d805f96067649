"""fashion-cnnf and its feedforward control fashion-cnn, on clean and on attacked images."""

from __future__ import annotations

import dataclasses

from cnnf_recipe import Recipe, command
from cnnf_training import Settings

WITH = Settings()
WITHOUT = dataclasses.replace(WITH, steps=0)
HARD = {"adversarial": True}


IMAGES = "One of ten kinds of clothes in a 28 x 28 grey image"
FEEDBACK = "recurrent feedback (CNN-F), trained on"
FORWARD = "a feedforward net, trained on"


def recipe(name: str, kind: str, settings: Settings) -> Recipe:
    """One of the four, whose summary says what it is by itself."""
    script = "plugins/feedback-adapter-cnnf/recipes/fashion_cnnf.py"
    return Recipe(name, script, f"{IMAGES}; {kind}", "fashion", settings)


RECIPES = {
    r.name: r
    for r in (
        recipe("fashion-cnnf", f"{FEEDBACK} clean images.", WITH),
        recipe("fashion-cnn", f"{FORWARD} clean images: the control for fashion-cnnf.", WITHOUT),
        recipe(
            "fashion-cnnf-adversarial",
            f"{FEEDBACK} attacked images.",
            dataclasses.replace(WITH, **HARD),
        ),
        recipe(
            "fashion-cnn-adversarial",
            f"{FORWARD} attacked images: the control for fashion-cnnf-adversarial.",
            dataclasses.replace(WITHOUT, **HARD),
        ),
    )
}

if __name__ == "__main__":
    command(RECIPES)
