"""Linear models, trained anew for every known set, as no user would want to."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from baselines.task import Task, sigmoid


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
    mean, level = x.mean(0), y.mean(0)
    x = x - mean
    gram = x.T @ x / len(x) + strength * np.eye(x.shape[1])
    return (new - mean) @ np.linalg.solve(gram, x.T @ (y - level) / len(x)) + level


def label_ridge(task: Task, strength: float = 0.01) -> np.ndarray:
    return ridge(
        task.train[:, task.known], task.train[:, task.unknown], task.truth[:, task.known], strength
    )


def probability_ridge(task: Task, strength: float = 0.01) -> np.ndarray:
    """Also the conditional of the joint Gaussian over probabilities and labels."""
    x = np.c_[sigmoid(task.train_logits), task.train[:, task.known]]
    new = np.c_[sigmoid(task.logits), task.truth[:, task.known]]
    return ridge(x, task.train[:, task.unknown], new, strength)


def logit_ridge(task: Task, strength: float = 0.003) -> np.ndarray:
    """Also the conditional of the joint Gaussian over logits and labels."""
    x = np.c_[task.train_logits, task.train[:, task.known]]
    new = np.c_[task.logits, task.truth[:, task.known]]
    return ridge(x, task.train[:, task.unknown], new, strength)


def label_logistic(task: Task, strength: float = 0.02) -> np.ndarray:
    return logistic(
        task.train[:, task.known], task.train[:, task.unknown], task.truth[:, task.known], strength
    )


def logit_logistic(task: Task, strength: float = 0.02) -> np.ndarray:
    x = np.c_[task.train_logits, task.train[:, task.known]]
    new = np.c_[task.logits, task.truth[:, task.known]]
    return logistic(x, task.train[:, task.unknown], new, strength)


def logistic(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
    """Log-odds of independent logistic regressions on standardised variables."""
    mean, spread = x.mean(0), x.std(0) + 1e-3
    inputs = torch.from_numpy(((x - mean) / spread).astype(np.float32))
    target = torch.from_numpy(y.astype(np.float32))
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = torch.logit(target.mean(0).clamp(1e-3)).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=40, history_size=8, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        losses = F.binary_cross_entropy_with_logits(inputs @ weight + bias, target, reduction="sum")
        loss = losses / len(x) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    scores = torch.from_numpy(((new - mean) / spread).astype(np.float32)) @ weight + bias
    return scores.detach().numpy()
