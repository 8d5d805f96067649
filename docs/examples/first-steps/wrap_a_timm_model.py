"""
Wrap a timm model
=================

Any model of timm can be wrapped in one line. An ImageNet model needs nothing else: timm notes its
classes and how photos become its input. This example looks for every place in the network where
an activation may change, and then says that a photo shows a vehicle.
"""

import timm
from skimage import data

import feedback_adapter as fa

# %%
# Here the model gets its ImageNet weights from a checkpoint of the zoo, so that the example runs
# without a download. With ``timm.create_model("tf_efficientnet_lite0", pretrained=True)`` you
# need only the last line.
model = timm.create_model("tf_efficientnet_lite0")
model.load_state_dict(fa.load("imagenet-lite0").model.state_dict())
adapter = fa.wrap(model)

# %%
# The photo is a rocket on its launch pad. The network takes it for a drilling platform.
images = adapter.transform.open(data.rocket())
probabilities = adapter.predict(images).softmax(1)[0]
for index in probabilities.argsort(descending=True)[:4].tolist():
    print(f"{adapter.labels[index]:20} {probabilities[index]:.0%}")

# %%
# A site is a place where an activation may change. The cost of its tail is the share of the model
# that runs in each iteration if you choose this site.
for site in adapter.sites(images)[::12]:
    print(f"{site.name:26} {tuple(site.shape)!s:20} tail {site.tail_cost:5.1%}")

# %%
# We know that the photo shows some vehicle. ImageNet's hierarchy, which comes with the library,
# says which classes are vehicles.
result = adapter.refine(images, fa.Coarse("vehicle"), strategy="newton")
print(result.table(top=4))

# %%
# ``plot`` draws the photo beside the predictions before and after. ImageNet's class for a rocket
# is called ``missile``.
result.plot("rocket_before_and_after.png", top=6)

# %%
# The model is as it was before, bit for bit. Nothing was retrained and nothing was changed.
