"""SDR in decibels on whole songs, against two baselines.

    python evaluate.py --weights ../assets/nullsum-preview.safetensors --pool POOL [--songs a,b] [--markdown]

SDR is 10·log10 of the stem's energy over the error's: of the whole song, and the median of the seconds in which the stem
sounds. Each baseline (the mixture itself; `baseline.py`) is scaled by the optimal gain for the true stem, which slightly
favours the baselines. Stems that a song lacks are left out.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

import baseline
import fused
from model import build
from prepare import HOLDOUT, SAMPLE_RATE, STEMS


def load(path):
    """Network and configuration of an exported file."""
    with safe_open(path, "pt") as file:
        config = yaml.safe_load(file.metadata()["config"])
    net = build(config).eval()
    net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return net, config


@torch.no_grad()
def demix(net, mixture, chunk, overlap):
    """mixture: [s, t] -> stems [n, s, t]; chunks faded into each other, every sample covered `overlap` times."""
    s, length = mixture.shape
    step = chunk // overlap
    border = chunk - step
    padded = np.pad(mixture, ((0, 0), (border, border + chunk)))
    fade = chunk // 10
    window = torch.ones(chunk)
    window[:fade] = torch.linspace(0, 1, fade + 2)[1:-1]
    window[-fade:] = window[:fade].flip(0)
    out = torch.zeros(net.num_stems, s, padded.shape[-1])
    weight = torch.zeros(padded.shape[-1])
    for start in range(0, border + length, step):
        audio = torch.from_numpy(np.ascontiguousarray(padded[:, start : start + chunk]))[None]
        hop = net.stft_kwargs["hop_length"]
        audio = torch.nn.functional.pad(audio, (0, -chunk % hop))
        out[..., start : start + chunk] += fused.forward(net, audio)[0, ..., :chunk] * window
        weight[start : start + chunk] += window
    return (out / weight.clamp(min=1e-6))[..., border : border + length].numpy()


def sdr(truth, estimate):
    """(whole, median per second)"""
    whole = 10 * np.log10((truth**2).sum() / max(((truth - estimate) ** 2).sum(), 1e-12))
    count = truth.shape[-1] // SAMPLE_RATE
    cut = count * SAMPLE_RATE
    energy = (truth[:, :cut] ** 2).reshape(2, count, -1).sum((0, 2))
    error = ((truth - estimate)[:, :cut] ** 2).reshape(2, count, -1).sum((0, 2))
    sounding = energy > 2 * SAMPLE_RATE * 10 ** (-50 / 10)
    seconds = 10 * np.log10(energy[sounding] / np.maximum(error[sounding], 1e-12))
    return float(whole), float(np.median(seconds)) if len(seconds) else float("nan")


def scaled(truth, estimate):
    return estimate * ((truth * estimate).sum() / max((estimate**2).sum(), 1e-12))


def read_song(folder, seconds):
    """Stems [n, s, t], zeros where the song has none."""
    found = {stem: np.load(folder / f"{stem}.npy", mmap_mode="r") for stem in STEMS if (folder / f"{stem}.npy").exists()}
    length = min(len(a) for a in found.values())
    take = min(length, int(seconds * SAMPLE_RATE)) if seconds else length
    start = (length - take) // 2
    out = np.zeros((len(STEMS), 2, take), np.float32)
    for stem, audio in found.items():
        out[STEMS.index(stem)] = audio[start : start + take].T.astype(np.float32) / 32768
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--songs", default=",".join(HOLDOUT))
    parser.add_argument("--seconds", type=float, help="only so many, from the middle")
    parser.add_argument("--chunk", type=int, help="instead of the configuration's")
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-dsp", action="store_true", help="leave the slow baseline out")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    net, config = load(args.weights)
    chunk = args.chunk or config["audio"]["chunk_size"]
    overlap = args.overlap or config["inference"]["num_overlap"]
    if args.markdown:
        print("| song | stem | model | scaled mixture | DSP | model, median second | mixture | DSP |")
        print("|---|---|---|---|---|---|---|---|")
    for name in args.songs.split(","):
        truth = read_song(args.pool / name, args.seconds)
        mixture = truth.sum(0)
        stems = demix(net, mixture, chunk, overlap)
        dsp = np.zeros_like(truth) if args.no_dsp else baseline.separate(mixture)
        for n, stem in enumerate(STEMS):
            if not truth[n].any():
                level = 10 * np.log10((stems[n] ** 2).sum() / (mixture**2).sum())
                line = ("silent in truth", f"estimate at {level:.1f} dB of the mixture")
                print(f"| {name} | {stem} | {line[0]}; {line[1]} ||||||" if args.markdown else f"{name:15} {stem:7} {line[0]}, {line[1]}")
                continue
            rows = [sdr(truth[n], e) for e in (stems[n], scaled(truth[n], mixture), scaled(truth[n], dsp[n]))]
            if args.markdown:
                cells = [f"{r[0]:.2f}" for r in rows] + [f"{r[1]:.2f}" for r in rows]
                print(f"| {name} | {stem} | " + " | ".join(cells) + " |", flush=True)
            else:
                (a, am), (b, bm), (c, cm) = rows
                print(
                    f"{name:15} {stem:7} model {a:6.2f} mixture {b:6.2f} dsp {c:6.2f}"
                    f" | median second {am:6.2f} {bm:6.2f} {cm:6.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
