"""What a site's activations look like on an object and away from it."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

BINS, WIDTH = 80, 0.1  # the background's histogram: bin 0 is exactly 0, bin i ends at i * WIDTH
ON = 0.25  # a normalised activation above this counts as on
NOISE = (0.05, 2.0)  # range of the noise in normalised units
RARE = 0.004  # a channel that fires on less than this share of an object's cells is dead
FAINT = 1e-4  # a channel that never fires has no scale
WEAK = 0.01  # and so is one whose rms is below this share of the strongest one's


class Observation(nn.Module):
    """One site: how activations are normalised, their noise, and the background's histogram.

    Args:
        channels: Number of channels of the site.
        image: The site is the image itself: all its values are on wherever the object is.
    """

    def __init__(self, channels: int, image: bool = False):
        super().__init__()
        self.image = image
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("alive", torch.ones(channels))
        self.register_buffer("noise", torch.ones(channels))
        self.register_buffer("histogram", torch.zeros(channels, BINS))  # log densities
        self.register_buffer("visible", torch.tensor(0.9))

    def normalise(self, activations: Tensor) -> Tensor:
        """Divide each channel by its rms on objects; dead channels become 0."""
        return activations * (self.alive / self.scale)[:, None, None]

    def log_background(self, normalised: Tensor) -> Tensor:
        """log density of each value under the background, same shape."""
        index = _bins(normalised)
        channels = torch.arange(self.histogram.shape[0], device=normalised.device)
        return self.histogram[channels[:, None, None], index]

    def fit(
        self, scene: Tensor, alone: Tensor, covered: Tensor, hidden: Tensor
    ) -> dict[str, float]:
        """Estimate everything from pairs of activations of one object.

        Args:
            scene: (n, C, H, W), raw activations of scenes.
            alone: (n, C, H, W), of the same objects on nothing.
            covered: (n, 1, H, W), share of each cell that the object covers.
            hidden: (n, 1, H, W) of bool, cells where something hides it.

        Returns:
            `on`, the share of elements that are on; `energy`, the background's mean energy
            over the object's; `noise`, the median over channels; `dead`, the dead channels.
        """
        self._fit_scale(alone)
        scene, alone = self.normalise(scene), self.normalise(alone)
        on = (covered > 0.5).expand_as(alone) if self.image else alone > ON
        shown = on & ~hidden
        wrong = hidden_on = total = 0.0
        for c in range(scene.shape[1]):
            error = (scene[:, c] - alone[:, c])[shown[:, c]].abs()
            noise = 1.4826 * error.median() if error.numel() > 20 else scene.new_tensor(1.0)
            self.noise[c] = noise.clamp(*NOISE)
            self.histogram[c] = _log_histogram(scene[:, c][~on[:, c]])
            wrong += float((error > 3 * self.noise[c]).sum())
            hidden_on += float((on[:, c] & hidden[:, 0]).sum())
            total += float(on[:, c].sum())
        seen = max(total - hidden_on, 1.0)
        self.visible.fill_((1 - hidden_on / max(total, 1.0)) * (1 - wrong / seen))
        energy = (scene**2)[~on].double().mean() / (alone**2)[on].double().mean().clamp(min=1e-12)
        return {
            "on": total / on.numel(),
            "energy": float(energy),
            "noise": float(self.noise[self.alive > 0].median()),
            "visible": float(self.visible),
            "dead": int((self.alive == 0).sum()),
        }

    def _fit_scale(self, alone: Tensor) -> None:
        squares = alone.double().square().sum((0, 2, 3))
        fires = (alone > 0).sum((0, 2, 3))
        self.scale.copy_((squares / fires.clamp(min=1)).sqrt())
        self.scale[self.scale < FAINT * self.scale.max()] = 1.0
        if self.image:
            return
        cells = alone.shape[0] * alone.shape[2] * alone.shape[3]
        rms = (squares / cells).sqrt()
        often = (alone > 0.05 * self.scale[:, None, None]).float().mean((0, 2, 3))
        self.alive.copy_(((often >= RARE) & (rms >= WEAK * rms.max())).float())


def _bins(values: Tensor) -> Tensor:
    return (values / WIDTH).ceil().long().clamp(0, BINS - 1)


def _log_histogram(values: Tensor) -> Tensor:
    """Log densities: bin 0 as it is, the rest smoothed over five bins, and a weak long tail."""
    counts = torch.bincount(_bins(values), minlength=BINS).float()
    padded = F.pad(counts[None, None, 1:], (2, 2), mode="replicate")
    counts[1:] = F.avg_pool1d(padded, 5, 1)[0, 0]
    tail = torch.exp(-WIDTH * torch.arange(BINS, device=values.device))
    counts = counts + (0.015 * tail + 1e-3) * counts.sum() / BINS
    return (counts / counts.sum() / WIDTH).log()
