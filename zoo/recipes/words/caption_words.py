"""caption-words-lite0: the words that people use to describe an image.

The task of Feedback-prop (CVPR 2018), section 4.1, on Flickr8k.
"""

from __future__ import annotations

from words.checkpoint import Recipe
from words.multilabel import Settings

RECIPE = Recipe(
    name="caption-words-lite0",
    script="zoo/recipes/words/caption_words.py",
    command="caption-words",
    summary=(
        "Which of 305 words people use when they describe a photo (multilabel, Flickr8k captions)."
    ),
    source="caption-words",
    data=(
        "Flickr8k, its official train, dev and test splits (of the packed data: nine tenths of\n"
        "each, and photos of 144 x 144). The labels of an image are the words of its five\n"
        "captions, lower-cased, lemmatised (simplemma) and without stop words; those that are\n"
        "in the captions of at least 50 training images."
    ),
    citation=(
        "M. Hodosh, P. Young, J. Hockenmaier: Framing Image Description as a Ranking Task,\n"
        "JAIR 2013. The photos belong to their authors on Flickr."
    ),
    license="Flickr8k: non-commercial research and education only",
    settings=Settings(size=224, drop_rate=0.5, feedback=2.0, feedback_step_size=2.0),
)

if __name__ == "__main__":
    from words.recipe import main

    main(RECIPE)
