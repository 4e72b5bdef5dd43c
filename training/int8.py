"""Quality loss of int8: SNR in decibels of the stems against f32, with the linear layers rounded to eight bits.

    python int8.py --weights ../assets/nullsum-preview.safetensors --pool POOL --song NAME

Weights are rounded with a scale for each output, activations with one for each token, both symmetric: the finest that integer
multiply-adds allow without splitting rows. Everything between the layers stays f32.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from evaluate import load, read_song
from prepare import STEMS

SECONDS = 60


def rounded(x):
    """x: [..., features], to 255 steps between the extremes of each row."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return (x / scale).round() * scale


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--song", required=True)
    args = parser.parse_args()
    net, config = load(args.weights)
    mixture = torch.from_numpy(read_song(args.pool / args.song, SECONDS).sum(0))
    # A quarter of the song is enough.
    chunks = mixture.unfold(-1, config["audio"]["chunk_size"], 4 * config["audio"]["chunk_size"]).transpose(0, 1)
    exact = net(chunks)
    print("| Rounded | " + " | ".join(STEMS) + " |")
    print("|---" * (len(STEMS) + 1) + "|")
    linears = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    for layer in linears:
        layer.weight.data = rounded(layer.weight.data)
    report("weights", exact, net(chunks))
    for layer in linears:
        layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    report("weights and activations", exact, net(chunks))


def report(name, exact, found):
    """exact, found: [chunks, stems, channels, samples]"""
    energy = exact.square().sum((0, 2, 3))
    snr = 10 * torch.log10(energy / (exact - found).square().sum((0, 2, 3)))
    print(f"| {name} | " + " | ".join(f"{x:.1f}" for x in snr.tolist()) + " |")


if __name__ == "__main__":
    main()
