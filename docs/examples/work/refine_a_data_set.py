"""
Refine a data set
=================

A folder of photos, and a file with what is known of some of them. `fa.refine_batches` goes
through a data set in memory that doesn't grow with its size, and reads the next photos while the
model works. For files with results, for many machines and for going on after a crash there is the
command `feedback-adapter batch`.
"""

import csv
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

import feedback_adapter as fa

# %%
# Three photos in a folder, and a table of what somebody knows. An empty cell means that nobody
# knows.
folder = Path(tempfile.mkdtemp())
for name in ("astronaut", "camera", "coffee"):
    Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
(folder / "known.csv").write_text(
    "file,woman,camera,table\nastronaut.png,1,0,\ncamera.png,,1,\ncoffee.png,0,,1\n"
)


# %%
# A source gives a batch at a time: its photos, and what is known of them. Here a batch has two
# photos.
def source(size: int = 2):
    with (folder / "known.csv").open() as file:
        rows = list(csv.DictReader(file))
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        photos = [folder / row["file"] for row in some]
        known = [
            {label: int(value) for label, value in row.items() if label != "file" and value}
            for row in some
        ]
        yield photos, fa.Labels(known)


# %%
# Each result has the photos of one batch. ``to_frame`` makes a table of pandas.
adapter = fa.load("caption-words-lite0")
for result in fa.refine_batches(adapter, source()):
    frame = result.to_frame()
    moved = frame[~frame.known].assign(change=lambda f: f.after - f.before)
    print(moved.sort_values("change")[["image", "label", "before", "after"]].tail(3).round(2))

# %%
# A result can be drawn, too. This is the last one, of the cup of coffee.
result.plot("coffee_before_and_after.png", top=6)

# %%
# The same from the command line, with a Parquet file as the result::
#
#     feedback-adapter batch photos/ --evidence known.csv --out refined/ \
#         --checkpoint caption-words-lite0
#
# If it is stopped and started again, it does only what is missing.
