"""Linear models, trained anew for every known set, as no user would want to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from fa_evaluate.baselines.training import Predictor, Training, sigmoid

Inputs = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def known_only(_: np.ndarray, said: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The known labels alone, (N, known)."""
    return said[:, known]


def with_logits(logits: np.ndarray, said: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The model's logits beside the known labels, (N, n + known)."""
    return np.c_[logits, said[:, known]]


def with_probabilities(logits: np.ndarray, said: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The model's probabilities beside the known labels, (N, n + known)."""
    return np.c_[sigmoid(logits), said[:, known]]


def ridge(
    train: Training, known: np.ndarray, unknown: np.ndarray, inputs: Inputs, strength: float
) -> Predictor:
    """Least squares; on logits or probabilities also the conditional of a joint Gaussian."""
    x, y = inputs(train.logits, train.labels, known), train.labels[:, unknown]
    mean, level = x.mean(0), y.mean(0)
    x = x - mean
    gram = x.T @ x / len(x) + strength * np.eye(x.shape[1])
    weight: np.ndarray = np.linalg.solve(gram, x.T @ (y - level) / len(x))

    def predict(logits: np.ndarray, said: np.ndarray) -> np.ndarray:
        return np.asarray((inputs(logits, said, known) - mean) @ weight + level)

    return predict


def logistic(
    train: Training, known: np.ndarray, unknown: np.ndarray, inputs: Inputs, strength: float
) -> Predictor:
    """Independent logistic regressions on standardised variables."""
    x, y = inputs(train.logits, train.labels, known), train.labels[:, unknown]
    mean, spread = x.mean(0), x.std(0) + 1e-3
    rows = torch.from_numpy(((x - mean) / spread).astype(np.float32))
    target = torch.from_numpy(y.astype(np.float32))
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = torch.logit(target.mean(0).clamp(1e-3)).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=40, history_size=8, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        losses = F.binary_cross_entropy_with_logits(rows @ weight + bias, target, reduction="sum")
        loss = losses / len(x) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    w, b = weight.detach().numpy(), bias.detach().numpy()
    return lambda logits, said: sigmoid(((inputs(logits, said, known) - mean) / spread) @ w + b)
