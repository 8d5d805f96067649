"""What an explanation costs, by pieces of evidence, and what captum's ShapleyValues would.

Explains one word of a photo by so many told words, with `caption-words-lite0` and newton, one
thread. captum goes through all orders; it gets the same numbers from memory, so that its time is
that of its own arithmetic alone.
"""

import argparse
import platform
import time

import captum
import torch
from captum.attr import ShapleyValues
from skimage import data

import feedback_adapter as fa

LABELS = ["woman", "helmet", "flag", "smile", "space", "person", "white", "wear", "hat", "red"]
"""Words that could be told of the photo; the further ones that are asked for are other labels."""

CAPTUM = 7
"""Of more pieces captum isn't asked: of 8 it would take about a minute, of 10 over an hour."""


def main(counts: list[int]) -> None:
    torch.set_num_threads(1)
    adapter = fa.load("caption-words-lite0")
    images = adapter.transform(data.astronaut())[None]
    known = [word for word in LABELS if word in adapter.labels]
    known += [word for word in adapter.labels if word not in (*known, "boy")]
    print(f"torch {torch.__version__}, captum {captum.__version__}, {platform.processor()}")
    print("facts  refinements  seconds  captum's seconds  largest difference")
    for count in counts:
        told = fa.Labels({word: float(i % 3 > 0) for i, word in enumerate(known[:count])})
        result = adapter.refine(images, told, strategy="newton", explainable=True)
        start = time.perf_counter()
        why = result.explain("boy")
        seconds = time.perf_counter() - start
        line = f"{count:5}  {why.refinements:11}  {seconds:7.2f}"
        if count <= CAPTUM:
            worth = torch.tensor([row.log_odds for row in why.contributions])
            start = time.perf_counter()
            values = ShapleyValues(lambda chosen, worth=worth: chosen @ worth).attribute(
                torch.ones(1, count), baselines=0
            )[0]
            line += f"  {time.perf_counter() - start:16.2f}"
            line += f"  {float((values - worth).abs().max()):18.1e}"
        print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    help = "how many pieces of evidence to explain by; several may be given"
    parser.add_argument("facts", type=int, nargs="*", default=[1, 2, 3, 5, 7, 10, 16], help=help)
    main(parser.parse_args().facts)
