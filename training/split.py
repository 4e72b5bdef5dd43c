"""Converts exported weights to the same network with more, narrower bands, as a start for further training.

    python split.py --weights ../assets/nullsum-preview.safetensors --bands 6,6,6,6,8,8,8,... --out split.safetensors

Every band of the old network must be a run of the new ones. Each new band gets its part of the old band's projection, times the
square root of the number of parts, so that its vector is as long as the old one's, and its rows of the masks' heads. The result is
not the same function (each new band sees part of the old one's input, and positions along frequency change), but it saves the first hours of
training.
"""

import argparse
from pathlib import Path

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

VALUES = 4  # a bin's: two channels, real and imaginary


def runs(old, new):
    """For each old band, the numbers and widths of the new ones in it."""
    position, found = 0, []
    for width in old:
        run, total = [], 0
        while total < width and position < len(new):
            run.append((position, new[position]))
            total += new[position]
            position += 1
        if total != width:
            raise SystemExit(f"a band of {width} bins is not a run of the new bands {run}")
        found.append(run)
    if position != len(new):
        raise SystemExit(f"{len(new) - position} new bands are left over")
    return found


def split(tensors, old, new):
    """State dict of the network with the bands `new`."""
    made = {k: v for k, v in tensors.items() if not k.startswith(("band_split.", "mask_estimators."))}
    stems = 1 + max(int(k.split(".")[1]) for k in tensors if k.startswith("mask_estimators."))
    for band, run in enumerate(runs(old, new)):
        first = 0
        for number, width in run:
            part = slice(first * VALUES, (first + width) * VALUES)
            source, goal = f"band_split.to_features.{band}", f"band_split.to_features.{number}"
            made[f"{goal}.0.gamma"] = tensors[f"{source}.0.gamma"][part]
            made[f"{goal}.1.weight"] = tensors[f"{source}.1.weight"][:, part] * len(run) ** 0.5
            made[f"{goal}.1.bias"] = tensors[f"{source}.1.bias"]
            for stem in range(stems):
                source = f"mask_estimators.{stem}.to_freqs.{band}.0.0"
                goal = f"mask_estimators.{stem}.to_freqs.{number}.0.0"
                for name in ("weight", "bias"):
                    # Values, then their gates.
                    halves = tensors[f"{source}.{name}"].chunk(2)
                    made[f"{goal}.{name}"] = torch.cat([half[part] for half in halves])
            first += width
    return {k: v.contiguous().clone() for k, v in made.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--bands", required=True, help="bins of the new bands, comma separated")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with safe_open(args.weights, "pt") as file:
        metadata = file.metadata()
    config = yaml.safe_load(metadata["config"])
    new = [int(width) for width in args.bands.split(",")]
    tensors = split({k: v.float() for k, v in load_file(args.weights).items()}, config["model"]["freqs_per_bands"], new)
    config["model"]["freqs_per_bands"] = new
    save_file(tensors, args.out, {**metadata, "config": yaml.safe_dump(config, sort_keys=False)})
    print(f"{args.out}: {len(new)} bands, {sum(v.numel() for v in tensors.values())} values")


if __name__ == "__main__":
    main()
