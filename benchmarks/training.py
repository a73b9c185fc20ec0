"""Training steps of our encoders beside MONAI's, and the memory of contrastive losses.

    python benchmarks/training.py [--quick] [--large] [--rounds 7] [--threads 2]

A step is forward, backward and a fused AdamW update. Ours and MONAI's of one kind take turns, and the table shows the median of
each and of the ratios within rounds. Shapes are equal: the same tokens, width, depth, heads, mask ratio and decoder; MONAI's
layers have no qkv bias by default, so ours have none here. Memory is the rise of the resident high-water mark of a fresh process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial

WIDTH, DEPTH, HEADS, PATCH = 192, 6, 3, 4
SIZES = {"quick": ((24, 4),), "usual": ((24, 16), (48, 2)), "large": ((24, 16), (48, 2), (64, 1))}
LOSSES = ("ours, matmul", "MONAI ContrastiveLoss", "late interaction, chunked", "late interaction, whole")


@dataclass
class Side:
    """One way to make a step: returns seconds."""

    net: object
    loss: object
    bf16: bool

    def __post_init__(self):
        import torch

        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=1e-4, fused=True)

    def step(self):
        import torch

        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.net)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return time.perf_counter() - begin


def _vit(pixels, edge, bf16):
    from monai.networks.nets import ViT

    from medvl.models.encoders.vit import VisionTransformer, VitOptions

    ours = VisionTransformer(1, (edge,) * 3, VitOptions(patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS, qkv_bias=False))
    theirs = ViT(1, edge, PATCH, WIDTH, 4 * WIDTH, DEPTH, HEADS)
    return (ours, lambda net: net(pixels).tokens.float().square().mean()), (
        theirs,
        lambda net: net(pixels)[0].float().square().mean(),
    )


def _masked(pixels, edge, bf16):
    import torch
    from monai.networks.nets import MaskedAutoEncoderViT

    from medvl.models.encoders.transformer import patchify
    from medvl.models.encoders.vit import VisionTransformer, VitOptions
    from medvl.models.masked import MaskedAutoencoder, MaskedOptions

    shape = VitOptions(patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS, qkv_bias=False, class_token=True)
    ours = MaskedAutoencoder(
        VisionTransformer(1, (edge,) * 3, shape), MaskedOptions(decoder_width=96, decoder_depth=4, decoder_heads=3)
    )
    theirs = MaskedAutoEncoderViT(
        1,
        edge,
        PATCH,
        WIDTH,
        4 * WIDTH,
        DEPTH,
        HEADS,
        0.75,
        96,
        4 * 96,
        4,
        3,
        pos_embed_type="learnable",
        decoder_pos_embed_type="learnable",
    )
    if bf16:  # as it is, MONAI's stops under autocast: it writes bfloat16 tokens into a float32 table
        theirs.mask_tokens.data = theirs.mask_tokens.data.bfloat16()
    seeds = torch.arange(len(pixels))

    def our_loss(net):
        found = net(pixels, seeds)
        return (found["reconstruction"].float() - found["target"]).square().mean()

    def their_loss(net):
        rebuilt, mask = net(pixels)
        target = patchify(pixels, (PATCH,) * 3)
        variance, mean = torch.var_mean(target, -1, keepdim=True)
        error = (rebuilt.float() - (target - mean) * (variance + 1e-6).rsqrt()).square().mean(-1)
        return (error * mask).sum() / mask.sum()

    return (ours, our_loss), (theirs, their_loss)


def _resnet(pixels, edge, bf16, channels_last):
    import torch
    from monai.networks.nets import resnet18

    from medvl.models.encoders.registry import build_encoder

    ours = build_encoder("resnet18", in_channels=1, grid_dhw=(edge,) * 3, options={"max_pool": edge > 32})
    theirs = resnet18(n_input_channels=1, conv1_t_stride=2, feed_forward=False, shortcut_type="B", no_max_pool=edge <= 32)
    if channels_last:
        ours, pixels = ours.to(memory_format=torch.channels_last_3d), pixels.to(memory_format=torch.channels_last_3d)
    return (ours, lambda net: net(pixels).pooled.float().square().mean()), (
        theirs,
        lambda net: net(pixels).float().square().mean(),
    )


KINDS = {"ViT": _vit, "masked autoencoder": _masked, "ResNet-18": partial(_resnet, channels_last=False)}
KINDS["ResNet-18, ours channels-last"] = partial(_resnet, channels_last=True)


def steps(sizes, rounds):
    """Print a row for each kind, size and precision."""
    import torch

    print("| step | tokens or grid | batch | precision | medvl s | MONAI s | MONAI / medvl |\n|---|---|---|---|---|---|---|")
    for edge, batch in sizes:
        pixels = torch.rand(batch, 1, edge, edge, edge, generator=torch.Generator().manual_seed(0))
        for kind, make in KINDS.items():
            what = f"{edge}^3" if kind.startswith("ResNet") else f"{(edge // PATCH) ** 3:,}"
            for bf16 in (False, True):
                torch.manual_seed(0)
                ours, theirs = (Side(net, loss, bf16) for net, loss in make(pixels, edge, bf16))
                ours.step(), theirs.step()
                times = [(ours.step(), theirs.step()) for _ in range(rounds)]
                middle = [statistics.median(t[i] for t in times) for i in (0, 1)]
                ratio = statistics.median(b / a for a, b in times)
                precision = "bf16" if bf16 else "fp32"
                print(
                    f"| {kind} | {what} | {batch} | {precision} | {middle[0]:.3f} | {middle[1]:.3f} | {ratio:.2f} |", flush=True
                )


def loss_memory(name, n, width):
    """MiB that one forward and backward of a loss adds to this process, and its seconds."""
    import torch
    from monai.losses import ContrastiveLoss
    from torch.nn.functional import normalize

    torch.manual_seed(0)
    shapes = ((n, width), (n, width)) if "late" not in name else ((n // 4, 216, width // 4), (n // 4, 32, width // 4))
    image, text = (normalize(torch.randn(shape), dim=-1).requires_grad_() for shape in shapes)
    calculate = _loss(name, ContrastiveLoss)
    small = (image[:8].detach().requires_grad_(), text[:8].detach().requires_grad_())
    calculate(*small).backward()
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    calculate(image, text).backward()
    seconds = time.perf_counter() - begin
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "seconds": seconds}


def _loss(name, theirs):
    import torch

    from medvl.objectives.contrastive import image_text_contrastive

    if name == "MONAI ContrastiveLoss":
        return theirs(temperature=0.07)
    if name == "ours, matmul":
        return lambda image, text: image_text_contrastive(image, text, torch.tensor(1 / 0.07))
    from medvl.objectives.late_interaction import best_matches, late_interaction

    def late(image, text):
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        scores = best_matches(image, text, mask) if name.endswith("whole") else late_interaction(image, text, mask, 2**20)
        return sum(score.mean() for score in scores)

    return late


def memory(n, width):
    """Print a row for each loss, each from a process of its own."""
    print("\n| loss | shape | added MiB | s |\n|---|---|---|---|")
    for name in LOSSES:
        asked = [sys.executable, __file__, "--loss", name, "--n", str(n), "--width", str(width)]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        shape = (
            f"{n // 4} images of 216 tokens, {n // 4} texts of 32, {width // 4} wide"
            if "late" in name
            else f"{n} pairs, {width} wide"
        )
        if done.returncode:
            print(f"| {name} | {shape} | not run: {done.stderr.strip().splitlines()[-1]} | |", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {shape} | {found['mib']:.0f} | {found['seconds']:.2f} |", flush=True)


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="216 tokens, batch 4, 3 rounds, losses of 64 pairs")
    parser.add_argument("--large", action="store_true", help="4,096 tokens as well")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loss", choices=LOSSES, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    if asked.loss:
        print(json.dumps(loss_memory(asked.loss, asked.n, asked.width)))
        return
    steps(SIZES["quick" if asked.quick else "large" if asked.large else "usual"], 3 if asked.quick else asked.rounds)
    memory(64 if asked.quick else asked.n, 128 if asked.quick else asked.width)


if __name__ == "__main__":
    main()
