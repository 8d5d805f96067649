"""Words and a caption from one backbone: the second multi-task model of Feedback-prop.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.4.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from feedback_adapter.networks.decoder import CaptionDecoder


class Captioner(nn.Module):
    """A timm model with its classifier, and a caption decoder on the same pooled features.

    Args:
        backbone: Name of the timm model; it needs `forward_head(..., pre_logits=True)`.
        words: Number of words that the classifier predicts.
        vocabulary: Number of tokens of the decoder.
        width: Of the image's vector and of the embeddings.
        hidden: Of the LSTM.
        dropout: Of the decoder, while training.
    """

    def __init__(
        self,
        backbone: str,
        words: int,
        vocabulary: int,
        width: int = 256,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model(backbone, num_classes=words)
        self.decoder = CaptionDecoder(
            self.backbone.num_features, vocabulary, width, hidden, dropout
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`{"words": (batch, words) logits, "caption": (batch, width) image vectors}`.

        What a caption's probability is, given its image's vector, is the decoder's to say.
        """
        maps = self.backbone.forward_features(images)
        features = self.backbone.forward_head(maps, pre_logits=True)
        return {
            "words": self.backbone.get_classifier()(features),
            "caption": self.decoder.start(features),
        }
