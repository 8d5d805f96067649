"""cifar10-wrn-cnnf and its twin cifar10-wrn-cnn, plain and adversarial.

The published net is WRN-40-2 (`--net wrn-40-2`, the default here); a smaller one that fits a
budget is `--net wrn-16-2`.
"""

from __future__ import annotations

import dataclasses

from cnnf_recipe import Recipe, command
from cnnf_training import Settings

WITH = Settings(
    net="wrn-40-2",
    site="group1.0",
    inner=("group1", "group2"),
    steps=2,
    head_norm="sample",
    eps=8 / 255,
    attack_step=2.55 / 255,
    clean_weight=0.05,
    augment=True,
    epochs=40,
)
WITHOUT = dataclasses.replace(WITH, steps=0)
HARD = {"adversarial": True}


def recipe(name: str, summary: str, settings: Settings) -> Recipe:
    return Recipe(name, "zoo/recipes/cifar_cnnf.py", summary, "cifar10", settings)


RECIPES = {
    r.name: r
    for r in (
        recipe("cifar10-wrn-cnnf", "CIFAR-10, wide ResNet with recurrent feedback.", WITH),
        recipe("cifar10-wrn-cnn", "The same net without feedback.", WITHOUT),
        recipe(
            "cifar10-wrn-cnnf-adversarial",
            "CIFAR-10, wide ResNet with recurrent feedback, trained on attacked images.",
            dataclasses.replace(WITH, **HARD),
        ),
        recipe(
            "cifar10-wrn-cnn-adversarial",
            "The same net without feedback, trained on attacked images.",
            dataclasses.replace(WITHOUT, **HARD),
        ),
    )
}

if __name__ == "__main__":
    command(RECIPES)
