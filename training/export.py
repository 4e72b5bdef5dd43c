"""Write the averaged weights as f16 safetensors with the configuration inside, and print the sha256.

    python export.py --state STATE --out ../assets/nullsum-preview.safetensors

The configuration is the one the state was trained with. Several states of one run are exported as their mean; choose by a
song that the figures are not taken from.
"""

import argparse
import hashlib
from pathlib import Path

import torch
import yaml
from safetensors.torch import save


def rounded(values, bits):
    """f16 of which only `bits` of the mantissa's 10 are used."""
    unused = 10 - bits
    whole = values.to(torch.float16).contiguous().view(torch.int16)
    return ((whole + (1 << unused >> 1)) & -(1 << unused)).view(torch.float16)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=10, help="of a weight's mantissa that are used: with fewer, archives of the file are smaller")
    args = parser.parse_args()

    saved = [torch.load(path, map_location="cpu", weights_only=True) for path in args.state]
    for path, state in zip(args.state, saved):
        if state["config"] != saved[0]["config"]:
            raise SystemExit(f"{path}: another configuration than that of {args.state[0]}: there is no mean of both")
    averages = [state["average"] for state in saved]
    mean = {k: sum(a[k] for a in averages) / len(averages) for k in averages[0]}
    steps = "+".join(str(state["step"]) for state in saved)
    # Both rotary embeddings are one frozen vector, which the reference stores once a layer; rounded, it would be off late in a chunk.
    exact = lambda k: k.endswith("rotary_embed.freqs")
    tensors = {k: v.to(torch.float32).contiguous().clone() if exact(k) else rounded(v, args.bits) for k, v in mean.items()}
    metadata = {
        "config": yaml.safe_dump(saved[0]["config"], sort_keys=False),
        "name": "nullsum-preview",
        "model_type": "bs_roformer",
        "license": "CC0-1.0",
        "steps": steps,
    }
    data = save(tensors, metadata)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(data)
    parameters = sum(v.numel() for v in tensors.values())
    print(f"{args.out.name}: {len(tensors)} tensors, {parameters} values, {len(data)} bytes, step {steps}")
    print(f"sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
