"""cifar10-wrn-cnnf and its feedforward control cifar10-wrn-cnn, on clean and on attacked images.

The published net is WRN-40-2 (names with `wrn-40-2`). Those of the zoo are WRN-10-1, trained on
one CPU thread: small batches, so that a few passes are enough steps to learn from, PGD-3, and
adversarial training starts from the weights of the net trained on clean images (`--start`): from
fresh weights two such passes got no further than 21% of clean images. The feedforward control
makes as many passes as take the same time.
"""

from __future__ import annotations

import dataclasses

from cnnf_recipe import Recipe, command
from cnnf_training import Settings

PUBLISHED = Settings(
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
SMALL = dataclasses.replace(
    PUBLISHED, net="wrn-10-1", inner=("group2",), batch=64, attack_steps=3, attack_step=5 / 255
)
EPOCHS = {"cnnf": 4, "cnn": 16, "cnnf-adversarial": 2, "cnn-adversarial": 6}
IMAGES = "One of ten kinds of animals and vehicles in a 32 x 32 image (CIFAR-10)"


def recipe(size: str, kind: str, settings: Settings) -> Recipe:
    """One of the four kinds of a net, whose summary says what it is by itself."""
    steps = settings.steps if kind.startswith("cnnf") else 0
    settings = dataclasses.replace(settings, steps=steps, adversarial=kind.endswith("adversarial"))
    what = "recurrent feedback (CNN-F)" if steps else "a feedforward net"
    how = "attacked" if settings.adversarial else "clean"
    control = "" if steps else f": the control for cifar10-{size}-{kind.replace('cnn', 'cnnf')}"
    return Recipe(
        f"cifar10-{size}-{kind}",
        "plugins/feedback-adapter-cnnf/recipes/cifar_cnnf.py",
        f"{IMAGES}; {what}, trained on {how} images{control}.",
        "cifar10",
        settings,
    )


RECIPES = {
    r.name: r
    for kind, epochs in EPOCHS.items()
    for r in (
        recipe("wrn", kind, dataclasses.replace(SMALL, epochs=epochs)),
        recipe("wrn-40-2", kind, PUBLISHED),
    )
}

if __name__ == "__main__":
    command(RECIPES)
