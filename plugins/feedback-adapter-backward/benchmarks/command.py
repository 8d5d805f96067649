"""The options that most benchmarks have."""

import argparse
from pathlib import Path

from drawn import ROOT

DATA = {
    "models": "what finish.py wrote",
    "objects": "the file of rendered objects",
    "coco": "the folder of COCO",
}


def parser(does: str | None, *data: str, out: str) -> argparse.ArgumentParser:
    """One with the checkpoint, the data that is needed, and where the result goes."""
    made = argparse.ArgumentParser(description=does)
    made.add_argument("--checkpoint", default="planes-backward")
    for name in data:
        made.add_argument(f"--{name}", type=Path, required=True, help=DATA[name])
    made.add_argument("--out", type=Path, default=ROOT / out)
    return made
