"""
Text beside the image
=====================

Photos on the web have captions, tags or an article around them. Such a text names some of what is
in the photo. It leaves much out, and some words in it have nothing to do with the photo.
`fa.Text` reads it as what it is: an unreliable observation of the labels.
"""

from skimage import data

import feedback_adapter as fa

adapter = fa.load("caption-words-lite0")
images = adapter.transform.open(data.camera())

# %%
# Words are found in any form: *films* doesn't name a label, *coats* would mention ``coat``. A
# negation such as *no dog* isn't taken as a mention.
text = fa.Text(
    "A man in a black coat films the city with his camera. There is no dog in this park."
)
result = adapter.refine(images, text)
print(result.table(top=6))
result.plot("man_with_a_camera_before_and_after.png", top=8)

# %%
# ``Reliability`` says how often a label that holds is mentioned, and how often one that doesn't
# hold is mentioned anyway. ``Reliability.fit`` counts both on images of which you have the text
# and the truth. Here a careless author mentions only a tenth of what is there, and as often what
# isn't.
careless = fa.Text("a dog on a cup", reliability=fa.Reliability(hit=0.1, false=0.09))
careful = fa.Text("a dog on a cup", reliability=fa.Reliability(hit=0.6, false=0.001))
for name, evidence in {"careless": careless, "careful": careful}.items():
    result = adapter.refine(images, evidence)
    dog = adapter.labels.index("dog")
    print(f"{name:9} dog {result.probabilities[0, dog]:.1%}")
