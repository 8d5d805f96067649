"""Gather what the training wrote into two files: `python finish.py FROM TO`.

`models.safetensors` has both backbones and the generative model without its templates, and
the logs as metadata; `templates.safetensors` has the templates.
"""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

LARGE = ("templates.logit", "templates.mean")


def gather(source: Path, target: Path) -> None:
    """Write the two files; what isn't there yet is left out."""
    models, templates, logs = {}, {}, {}
    for path in sorted(source.glob("*.safetensors")):
        for key, value in load_file(path).items():
            place = templates if key in LARGE else models
            half = key.startswith("decoders.") and value.ndim > 1
            place[f"{path.stem}.{key}"] = value.half() if half else value
    for path in sorted(source.glob("*.jsonl")):
        logs[path.stem] = path.read_text()
    for name, state, metadata in (("models", models, logs), ("templates", templates, {})):
        if state:
            partial = target / f"{name}.partial"
            save_file(state, partial, metadata)
            partial.rename(target / f"{name}.safetensors")


if __name__ == "__main__":
    gather(Path(sys.argv[1]), Path(sys.argv[2]))
