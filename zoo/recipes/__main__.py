"""Run a recipe: `python zoo/recipes NAME --help`.

Running the folder puts it on Python's path, so that a recipe in one folder can use another's.
"""

from __future__ import annotations

import runpy
import sys

RECIPES = {
    "caption-words": "words.caption_words",
    "coco80": "words.coco80",
    "label-prior": "words.label_prior",
    "ctran": "words.ctran",
    "caption-decoder": "captions.caption_decoder",
    "tinyimagenet-tree": "tree.tinyimagenet_tree",
    "imagenet-hierarchy": "imagenet_hierarchy",
    "imagenet-lite0": "imagenet_lite0",
    "verify": "verify",
}


def main() -> None:
    """Run the recipe that the first argument names, with the other arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(f"usage: python zoo/recipes NAME [--help]\n\nNAME is one of {', '.join(RECIPES)}.")
        return
    if name not in RECIPES:
        sys.exit(f"{name!r} is no recipe. Possible: {', '.join(RECIPES)}.")
    sys.argv = [f"zoo/recipes {name}", *sys.argv[2:]]
    runpy.run_module(RECIPES[name], run_name="__main__")


if __name__ == "__main__":
    main()
