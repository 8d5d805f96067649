"""coco80-lite0: which of COCO's 80 objects are in an image."""

from __future__ import annotations

from words.checkpoint import Recipe
from words.multilabel import Settings

RECIPE = Recipe(
    name="coco80-lite0",
    script="zoo/recipes/words/coco80.py",
    command="coco80",
    summary="Which of COCO's 80 kinds of objects are in a photo (multilabel).",
    source="coco-objects",
    data=(
        "COCO 2014: a part of it (the images with the lowest ids) in photos of 144 x 144. A\n"
        "tenth of the official training images, chosen by a hash of their names, is dev; the\n"
        "official validation images are test."
    ),
    citation=(
        "T.-Y. Lin et al.: Microsoft COCO: Common Objects in Context, ECCV 2014. The photos\n"
        "are under the terms that their authors chose on Flickr."
    ),
    license="COCO annotations: CC BY 4.0; photos: their authors' Flickr terms",
    settings=Settings(size=224),
)

if __name__ == "__main__":
    from words.recipe import main

    main(RECIPE)
