"""
A coarse class
==============

You can tell that a photo shows a bird, an insect or a vehicle, but not which one. `fa.Coarse`
says so, and the classes outside are ruled out.
"""

from skimage import data

import feedback_adapter as fa

adapter = fa.load("imagenet-lite0")
images = adapter.transform.open(data.rocket())

# %%
# ImageNet's own hierarchy gives the names of coarse classes. If no strategy is named, a coarse
# class is only held fixed: the other classes keep their ratios, and nothing in the network moves.
held = adapter.refine(images, fa.Coarse("vehicle"))
print(held.strategy)
print(held.table(top=4))

# %%
# A strategy also changes an activation until the network itself finds vehicles likely. On Tiny
# ImageNet no strategy scored better than holding the class fixed. On this photo both find the
# rocket, which ImageNet calls ``missile``.
moved = adapter.refine(images, fa.Coarse("vehicle"), strategy="newton")
print(moved.table(top=4))
moved.plot("rocket_before_and_after.png", top=6)

# %%
# If it is one of several coarse classes, say all of them.
either = adapter.refine(images, fa.Coarse([("aircraft", "spacecraft")]))
print(either.table(top=4))

# %%
# Without a hierarchy, a coarse class is a list of fine ones: pass them to ``Labels`` with 0 for
# each class that is ruled out, or give the output a hierarchy of its own.
some = fa.Labels({"drilling platform": 0, "crane (lifting device)": 0})
print(adapter.refine(images, some).table(top=4))
