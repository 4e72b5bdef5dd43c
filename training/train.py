"""Train the preview model within a box of time.

    python train.py --pool POOL --state STATE --minutes 100

An existing state file is continued: weights, moments, average, and the number of the next batch. The rate rises over the
first steps of a new run, stays, and falls to zero over the last part (`--decay`) of the box. `--init` starts
from exported weights, without moments, when there is no state.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import fused
from augment import Batches
from initialise import initialise
from loss import balance, loss
from model import build, read_config
from optimizer import optimizers
from prepare import STEMS

WEIGHTS = "song=0.8,variant=1.2,loose=0.4,morph=0.6,sung=0.6,sectoid=0.3,synth=0.5,electro=1,midi=0.5,band=1.5"


class State:
    """All that continues a run."""

    def __init__(self, config, muon_lr, adam_lr):
        torch.manual_seed(0)
        self.config = config
        self.net = build(config)
        self.average = copy.deepcopy(self.net)
        self.optimizers = optimizers(self.net, muon_lr, adam_lr)
        self.step, self.seconds = 0, 0.0

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        torch.save(
            dict(
                config=self.config,
                net=self.net.state_dict(),
                average=self.average.state_dict(),
                optimizers=[o.state_dict() for o in self.optimizers],
                step=self.step,
                seconds=self.seconds,
            ),
            temporary,
        )
        temporary.replace(path)

    def load(self, path):
        saved = torch.load(path, weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        for optimizer, state in zip(self.optimizers, saved.get("optimizers", [])):
            optimizer.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]

    @torch.no_grad()
    def update_average(self, momentum):
        weight = 1 - min(momentum, (1 + self.step) / (20 + self.step))
        for a, p in zip(self.average.parameters(), self.net.parameters()):
            a.lerp_(p, weight)


def rate(progress, step, decay, warmup=40):
    """Factor of the learning rate at `progress` (0 to 1) of the box."""
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, (1 - progress) / decay))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="exported weights to start from when there is no state")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--decay", type=float, default=0.6, help="share of the box over which the rate falls to zero")
    parser.add_argument("--holdout", default="sodium,mdn-multitrack")
    parser.add_argument("--weights", default=WEIGHTS, help="shares by kind of source")
    parser.add_argument("--coherent", type=float, default=0.25, help="share of examples that are one song as it is")
    parser.add_argument("--inside", type=float, default=0.0, help="share mixed from places of one song")
    parser.add_argument("--low-drums", type=float, default=0.0, help="share of drums shifted down by up to an octave")
    parser.add_argument("--voiceless", type=float, default=0.12, help="share of examples that get no singer")
    parser.add_argument("--seed", type=int, default=0, help="of the data: another one where a new state sees an old pool")
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--accumulate", type=int, default=1, help="batches a step")
    parser.add_argument("--frames", type=int, default=64, help="crop length in hops")
    parser.add_argument("--muon-lr", type=float, default=0.008)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--momentum", type=float, default=0.998, help="of the average")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--save-minutes", type=float, default=5)
    args = parser.parse_args()

    start = time.monotonic()
    torch.set_num_threads(args.threads)
    state = State(read_config(), args.muon_lr, args.adam_lr)
    if args.state.exists():
        state.load(args.state)
    for optimizer, lr in zip(state.optimizers, (args.muon_lr, args.adam_lr)):
        for group in optimizer.param_groups:
            group["peak"] = lr * group.get("scale", 1.0)
    weights = {k: float(v) for k, v in (pair.split("=") for pair in args.weights.split(","))}
    length = args.frames * state.net.stft_kwargs["hop_length"]
    shares = dict(coherent=args.coherent, inside=args.inside, low_drums=args.low_drums, voiceless=args.voiceless)
    first = state.step * args.accumulate
    data = Batches(args.pool, args.holdout.split(","), weights, args.batch, length, first, args.seed, **shares)
    if not args.state.exists():
        if args.init:
            state.net.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
        else:
            initialise(state.net, data)
        state.average.load_state_dict(state.net.state_dict())
    loader = iter(torch.utils.data.DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=4))
    compiled = torch.compile if args.compile else lambda function: function
    masks, terms = compiled(fused.masks), compiled(balance)

    parameters = [p for p in state.net.parameters() if p.requires_grad]
    saved, seen = start, []
    offset, first = state.seconds, state.step
    while (elapsed := time.monotonic() - start) < 60 * args.minutes:
        factor = rate(elapsed / (60 * args.minutes), state.step, args.decay)
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
        parts = []
        for part in range(args.accumulate):
            target = next(loader)
            mixture = fused.spectrum(state.net, target.sum(1))
            estimate = fused.separate(state.net, mixture, masks)
            value, decibels = loss(state.net, estimate, target, mixture, state.step + part, terms)
            (value / args.accumulate).backward()
            parts.append(torch.cat((value.detach()[None], decibels)))
        value, decibels = (mean := torch.stack(parts).nanmean(0))[0], mean[1:]
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.step += 1
        state.seconds = offset + elapsed
        state.update_average(args.momentum)
        seen.append(torch.cat((value[None], norm[None], decibels)))
        if state.step % 25 == 0 or state.step == first + 1:
            mean = torch.stack(seen).nanmean(0).tolist()
            seen.clear()
            audio = (state.step - first) * args.accumulate * args.batch * length / 44100
            stems = " ".join(f"{name} {db:6.2f}" for name, db in zip(STEMS, mean[2:]))
            print(
                f"{elapsed / 60:6.1f} min step {state.step:6d} rate {factor:.2f} loss {mean[0]:.4f} norm {mean[1]:.2f}"
                f" SDR {stems} | {audio / elapsed:.2f} s of audio a second",
                flush=True,
            )
        if time.monotonic() - saved > 60 * args.save_minutes:
            saved = time.monotonic()
            state.save(args.state)
    state.save(args.state)


if __name__ == "__main__":
    main()
