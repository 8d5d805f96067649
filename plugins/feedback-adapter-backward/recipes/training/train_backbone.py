"""Train the backbone: `python train_backbone.py --data data.npz --out DIR --seconds 300`.

The learning rate falls to zero with the clock, so that a slower machine only makes fewer
steps. Weights are written once a minute and at the end.
"""

import argparse
import json
import math
import time
from pathlib import Path

import losses
import torch
from backbone import TOP, Backbone, Heads
from backgrounds import Backgrounds, collages, dead_leaves, noise
from data import load
from examples import BUILDING, Sampler
from safetensors.torch import save_file

RATE, WARM_UP = 3e-3, 100
SAVE_EVERY = 60.0  # seconds


def bank(objects, photos, generator, made: int) -> Backgrounds:
    """Photographs, and `made` each of leaves, noise and (half as many) collages of buildings."""
    blocks = [photos]
    for start in range(0, made, 100):
        count = min(100, made - start)
        blocks += [dead_leaves(count, generator), noise(count, generator)]
        crowds = collages(count // 2, objects.of((BUILDING,)), generator)
        blocks.append(_resized(crowds, photos.shape[-1]))
    return Backgrounds(torch.cat(blocks))


def samplers(data: Path, made: int, generator: torch.Generator) -> tuple[Sampler, Sampler]:
    """Scenes to train on, and held out ones of other objects on other photographs."""
    objects, photos = load(data, "train", generator.device)
    dev_objects, _ = load(data, "dev", generator.device)
    held = max(1, len(photos) // 20)
    train = Sampler(objects, bank(objects, photos[held:], generator, made), generator)
    return train, Sampler(dev_objects, Backgrounds(photos[:held]), generator)


def _resized(pictures, size):
    big = torch.nn.functional.interpolate(pictures.float(), size=size, mode="bilinear")
    return big.round().to(torch.uint8)


def train(sampler: Sampler, seconds: float, batch: int, compositional: bool, save, log) -> None:
    """Train for about `seconds`; `save(net, heads)` is called now and then, `log(record)` too."""
    device = sampler.generator.device
    net = Backbone().to(device, memory_format=torch.channels_last).train()
    heads = Heads().to(device).train()
    weights = [*net.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=1e-4)
    begin = saved = time.monotonic()
    step, means = 0, {}
    while (done := (time.monotonic() - begin) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
        scenes = sampler.draw(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            terms = losses.parts(net, heads, scenes)
            loss = losses.total(terms, compositional)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            for key, value in terms.items():
                means[key] = 0.7 * means.get(key, value.item()) + 0.3 * value.item()
            log({"step": step, "done": round(done, 3)} | {k: round(v, 4) for k, v in means.items()})
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            save(net, heads)
    save(net, heads)


@torch.no_grad()
def scores(
    net: Backbone, heads: Heads, sampler: Sampler, batches: int = 10, batch: int = 32
) -> dict:
    """Held-out measurements: mask IoU of the target, and per site how features compose."""
    net.eval(), heads.eval()
    found: dict[str, list[float]] = {}
    for _ in range(batches):
        scenes = sampler.draw(batch)
        terms = losses.parts(net, heads, scenes)
        rows = torch.arange(batch, device=scenes.images.device)
        features, _ = net(scenes.images)
        mask = heads.mask(TOP, features[TOP])[rows, scenes.category] > 0
        true = scenes.masks[rows, scenes.category] > 0.5
        iou = (mask & true).sum((1, 2)) / (mask | true).sum((1, 2)).clamp(min=1)
        for key, value in (terms | {"mask iou": iou.mean()}).items():
            found.setdefault(key, []).append(float(value))
    net.train(), heads.train()
    return {key: round(sum(values) / len(values), 4) for key, values in found.items()}


def main() -> None:
    """Train one backbone and write `NAME.safetensors` and `NAME.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="compositional")
    parser.add_argument("--free", action="store_true", help="without the compositional losses")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--made", type=int, default=1000, help="backgrounds of each made kind")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    begin, device = time.monotonic(), torch.device(options.device)
    generator = torch.Generator(device).manual_seed(options.seed)
    sampler, dev = samplers(options.data, options.made, generator)
    lines = (options.out / f"{options.name}.jsonl").open("w")

    def log(record: dict) -> None:
        lines.write(json.dumps(record) + "\n")
        lines.flush()
        print(options.name, record, flush=True)

    def save(net: Backbone, heads: Heads) -> None:
        measured = scores(net, heads, dev)
        log({"held out": measured})
        state = {f"net.{k}": v for k, v in net.state_dict().items()}
        state |= {f"heads.{k}": v.half() for k, v in heads.state_dict().items()}
        state = {k: v.contiguous().cpu() for k, v in state.items()}
        metadata = {"held_out": json.dumps(measured), "seed": str(options.seed)}
        partial = options.out / f"{options.name}.partial"
        save_file(state, partial, metadata)
        partial.rename(options.out / f"{options.name}.safetensors")

    prepared = round(time.monotonic() - begin, 1)
    log({"prepared in seconds": prepared, "objects": len(sampler.objects)})
    left = max(1.0, options.seconds - (time.monotonic() - begin))
    train(sampler, left, options.batch, not options.free, save, log)


if __name__ == "__main__":
    main()
