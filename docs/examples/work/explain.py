"""
Why did this prediction move?
=============================

Several things are known about a photo, and a prediction moved. `result.explain` says how much
each piece of evidence contributed, and where in the image the network looked before and after.
"""

from skimage import data

import feedback_adapter as fa

# %%
# ``explainable=True`` keeps what it takes to refine the image again with less evidence.
adapter = fa.load("caption-words-lite0")
images = adapter.transform.open(data.astronaut())
known = fa.Labels({"woman": 1, "smile": 1, "street": 0})
result = adapter.refine(images, known, strategy="newton", explainable=True)

# %%
# Once these three words are known, a boy is less likely. The table says which of them did it. The
# contributions are Shapley values: the image is refined with every choice of the three, and each
# piece gets its average share. Together they are exactly the whole movement.
why = result.explain("boy")
print(why.table())

# %%
# The picture also shows where the network looks for this label.
why.plot("why_a_boy_is_less_likely.png")
