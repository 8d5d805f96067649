"""C-Tran: what is known reaches the other labels, and nothing else does."""

import torch

from words import ctran


def test_what_is_not_known_is_not_looked_at():
    torch.manual_seed(0)
    model, image = ctran.CTran(3, None).eval(), torch.randn(1, 3, 224, 224)
    known = torch.tensor([[True, False, False]])
    with torch.no_grad():
        one, other = (
            model(image, torch.tensor([[1.0, value, value]]), known) for value in (0.0, 1.0)
        )
        absent = model(image, torch.zeros(1, 3), known)
    assert torch.equal(one, other)
    assert not torch.equal(one[0, 1:], absent[0, 1:])
