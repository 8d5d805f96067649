"""The captioner's recipe on a handful of small images: what it trains on, keeps and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

pytest.importorskip("lightning_fabric", reason="the recipes' packages aren't installed")
import feedback_adapter as fa
import verify_scores
from captions import caption_decoder
from captions.caption_features import block_maps, head_adapter, pooled, refined
from captions.caption_training import PAD, Settings, dev_loss, encode, fit, vocabulary_of
from feedback_adapter.networks.decoder import END, START, UNKNOWN
from words import lite0

CAPTIONS = [["A dog runs.", "a dog, on grass"], ["The cat's asleep"], ["a dog runs fast"]]
WORDS = ("dog", "run", "grass")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base() -> fa.Adapter:
    torch.manual_seed(1)
    return fa.wrap(lite0.create(3, None).eval(), labels=WORDS, transform=fa.Transform((64, 64)))


def test_vocabulary_and_tokens() -> None:
    vocabulary = vocabulary_of(CAPTIONS, least=2)
    assert vocabulary == ("<start>", "<end>", "<unknown>", "a", "dog", "runs")
    tokens, images = encode(CAPTIONS, vocabulary, longest=3)
    assert images.tolist() == [0, 0, 1, 2]
    assert tokens.tolist() == [
        [START, 3, 4, 5, END],
        [START, 3, 4, UNKNOWN, END],  # cut
        [START, UNKNOWN, UNKNOWN, UNKNOWN, END],
        [START, 3, 4, 5, END],
    ]
    tokens, _ = encode(CAPTIONS, vocabulary)
    assert tokens[0].tolist()[:6] == [START, 3, 4, 5, END, PAD]


def test_features_are_the_networks_and_feedback_moves_them_towards_what_is_known(
    base: fa.Adapter,
) -> None:
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    maps = block_maps(base.model, images).float()
    head = head_adapter(base.model, WORDS)
    plain = pooled(head, maps)
    whole = base.model(images.float() / 127.5 - 1)
    torch.testing.assert_close(base.model.classifier(plain), whole, atol=2e-3, rtol=2e-3)
    other = block_maps(base.model, images, view=1)
    assert not torch.equal(other.float(), maps)
    assert torch.equal(other, block_maps(base.model, images, view=1))
    targets = torch.tensor([[1.0, 0, 1]] * 4)
    known = torch.tensor([[True, True, True]] * 3 + [[False, False, False]])
    moved = refined(head, maps, targets, known, caption_decoder.REFINE)
    before, after = (
        F.binary_cross_entropy_with_logits(base.model.classifier(f), targets, reduction="none")
        for f in (plain, moved)
    )
    assert bool((after[:3].sum(1) < before[:3].sum(1)).all())
    torch.testing.assert_close(moved[3], plain[3])  # nothing known


def test_training_learns_captions_from_features_and_keeps_the_best_pass() -> None:
    torch.manual_seed(0)
    vocabulary = vocabulary_of(CAPTIONS, least=1)
    captions = encode(CAPTIONS, vocabulary, 6)
    features = torch.randn(2, 3, 10)
    settings = Settings(
        width=16, hidden=24, dropout=0.0, epochs=16, batch=4, lr=0.05, noise=0.0, weight_decay=0.0
    )
    scores: list[float] = []

    def judge(decoder: torch.nn.Module) -> dict[str, float]:
        nats = dev_loss(decoder, features[0], captions)
        scores.append(-nats if len(scores) < 15 else -99.0)  # the last pass is spoilt
        return {"score": scores[-1]}

    found = fit(features, features + 0.1, captions, len(vocabulary), settings, judge)
    assert scores[-2] > scores[0] + 1  # nats a token
    assert found.epoch == int(np.argmax(scores)) + 1 != 16
    again = fit(
        features, features + 0.1, captions, len(vocabulary), settings, lambda _: {"score": 0}
    )
    assert again.epoch == 1  # ties: the first


def write_pack(folder: Path) -> None:
    """Flickr8k's packed layout, with noise for photos."""
    (folder / "images").mkdir()
    entries = {}
    random = np.random.default_rng(0)
    for index in range(9):
        name = f"{index}.png"
        pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        texts = ["a dog runs on grass", "the dog", "dog on the grass"][index % 3 :] + ["a dog"] * 2
        split = ("train", "dev", "test")[index // 3]
        entries[name] = {"split": split, "captions": texts[:2]}
    (folder / "captions.json").write_text(json.dumps(entries))


def test_the_recipe_writes_a_checkpoint_that_loads_and_scores_as_its_card(
    base: fa.Adapter, tmp_path: Path
) -> None:
    data, out = tmp_path / "flickr8k", tmp_path / "out"
    data.mkdir()
    write_pack(data)
    base.save(tmp_path / "base")
    caption_decoder.main(
        data=data, out=out, base=str(tmp_path / "base"), epochs=1, share=0.5, views=2, limit=0,
        least=2,
    )  # fmt: skip
    adapter = fa.load(out)
    assert adapter.defaults.pivots == ("backbone.conv_head",)
    state = base.model.state_dict()
    for name, value in adapter.model.backbone.state_dict().items():
        torch.testing.assert_close(value, state[name].half().float().to(value.dtype))
    card = verify_scores.card_scores(
        json.loads((out / "feedback_adapter.json").read_text()), "test"
    )
    measured = verify_scores.scores(out, tmp_path, "test")
    assert measured == pytest.approx(card, abs=1e-3)
    assert set(card) == {"cider", "bleu4", "map"}
    photo = adapter.transform.open(*sorted((data / "images").glob("*.png"))[:2])
    wrong = adapter.predict(photo)["words"][:, 0] < 0
    told = fa.Labels({"dog": wrong.tolist()}, output="words")
    result = adapter.refine(photo, told, solver="adam", step_size=0.05)
    assert len(fa.write_captions(result.outputs_after)) == 2
    assert not torch.equal(result.after["caption"], result.before["caption"])


def test_scores_on_a_card_may_be_flat_or_nested() -> None:
    flat = {"metrics": {"dev_map": 1.0, "test_map": 2.0}}
    assert verify_scores.card_scores(flat, "test") == {"map": 2.0}
    nested = {"metrics": {"dev": {"0": 3.0}, "test": {"0": 4.0, "avg": 5.0}}}
    assert verify_scores.card_scores(nested, "test") == {"0": 4.0, "avg": 5.0}
