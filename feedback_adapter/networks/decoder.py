"""An LSTM that writes captions, told the image at every step.

Source: Vinyals, Toshev, Bengio, Erhan, "Show and Tell", CVPR 2015, where the image is told
once, at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

START, END, UNKNOWN = 0, 1, 2
"""The first three entries of every vocabulary: `<start>`, `<end>` and `<unknown>`."""

Memory = tuple[Tensor, Tensor]


class CaptionDecoder(nn.Module):
    """An LSTM that writes a caption, given a vector that says what the image shows.

    Args:
        features: Size of the backbone's pooled features.
        vocabulary: Number of tokens, `<start>`, `<end>` and `<unknown>` among them.
        width: Of the image's vector and of the embeddings.
        hidden: Of the LSTM.
        dropout: In [0, 1), while training.
    """

    def __init__(
        self,
        features: int,
        vocabulary: int,
        width: int = 256,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image = nn.Linear(features, width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(2 * width, hidden, batch_first=True)
        self.out = nn.Linear(hidden, width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout = nn.Dropout(dropout)

    def start(self, features: Tensor) -> Tensor:
        """The image's vector (batch, width), of pooled features (batch, features)."""
        return self.image(self.dropout(features))

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Logits of every next token, by teacher forcing.

        Args:
            image: (batch, width), from `start`.
            tokens: (batch, length) int64, each caption from `<start>` on.

        Returns:
            (batch, length, vocabulary).
        """
        return self.step(image, tokens, None)[0]

    def step(self, image: Tensor, tokens: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """Logits (batch, length, vocabulary) of what follows, and the memory to go on from.

        Args:
            image: (batch, width), from `start`.
            tokens: (batch, length) int64, what was written since `memory`.
            memory: What the last step returned; `None` at the start.
        """
        words = self.dropout(self.embedding(tokens))
        shown = image.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        hidden, after = self.lstm(torch.cat([words, shown], 2), memory)
        out = self.out(self.dropout(hidden))
        return out @ self.embedding.weight.T + self.bias, after
