"""Train the preview model within a box of time.

    python train.py --pool POOL --state STATE --minutes 100

An existing state file is continued: weights, moments, average, and the number of the next batch. The rate rises over the
first steps of a new run, stays, and falls to zero over the last part (`--decay`) of the box. `--init` starts
from exported weights, without moments, when there is no state. A state may go from a CPU to a GPU (`--device cuda`) and back.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import fused
from augment import WEIGHTS, Batches, read_weights
from initialise import initialise
from loss import balance, loss
from model import CONFIG, build, read_config
from optimizer import optimizers
from prepare import HOLDOUT, STEMS, held_out


class State:
    """All that continues a run."""

    def __init__(self, config, muon_lr, adam_lr, device, **data):
        torch.manual_seed(0)
        self.config, self.data = config, data
        self.net = build(config).to(device)
        self.average = copy.deepcopy(self.net)
        self.optimizers = optimizers(self.net, muon_lr, adam_lr)
        self.step, self.batches, self.seconds = 0, 0, 0.0

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        torch.save(
            dict(
                config=self.config,
                net=self.net.state_dict(),
                average=self.average.state_dict(),
                optimizers=[o.state_dict() for o in self.optimizers],
                data=self.data,
                step=self.step,
                batches=self.batches,
                seconds=self.seconds,
            ),
            temporary,
        )
        temporary.replace(path)

    def load(self, saved):
        self.net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        for optimizer, state in zip(self.optimizers, saved.get("optimizers", [])):
            optimizer.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]
        # Older states do not say how many batches they have seen.
        self.batches = saved.get("batches", self.step * self.data["accumulate"])

    @torch.no_grad()
    def update_average(self, momentum):
        weight = 1 - min(momentum, (1 + self.step) / (20 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), weight)


def rate(progress, step, decay, warmup=40):
    """Factor of the learning rate at `progress` (0 to 1) of the box; it never falls where `decay` is 0."""
    fall = min(1.0, max(0.0, (1 - progress) / decay)) if decay else 1.0
    return min(1.0, (step + 1) / warmup) * fall


def refuse_other_data(saved, args):
    """A state goes on with the batches that it would have seen next, unless that is not wanted."""
    for name, value in saved.get("data", {}).items():
        if name in ("seed", "batch", "frames") and getattr(args, name) != value and not args.new_data:
            raise SystemExit(
                f"{args.state} was trained with --{name} {value}, not {getattr(args, name)}, and would not see the batches of an"
                f" uninterrupted run: give --{name} {value}, or --new-data if that is meant"
            )
    if args.config and read_config(args.config) != saved["config"]:
        raise SystemExit(f"{args.state} has another configuration than {args.config}: leave --config out, or begin a new state")


def read_holdout(text, pool):
    """Names of `--holdout`, each of which the pool has, but for the usual ones, which `pack.py` leaves out."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    folders = [folder.name for folder in pool.iterdir()]
    if unknown := [name for name in names if name not in HOLDOUT and not any(held_out(folder, [name]) for folder in folders)]:
        raise SystemExit(f"--holdout: {pool} has no {', '.join(unknown)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--config", type=Path, help=f"of a new state, {CONFIG.name} unless given; a state has its own")
    parser.add_argument("--init", type=Path, help="exported weights to start from when there is no state")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--decay", type=float, default=0.6, help="share of the box over which the rate falls to zero; 0: it stays")
    parser.add_argument("--holdout", default=",".join(HOLDOUT), help="songs that are never seen, nor what is made from them")
    parser.add_argument("--weights", default=WEIGHTS, help="shares by kind of source; a kind that is not named is left out")
    parser.add_argument("--coherent", type=float, default=0.25, help="share of examples that are one song as it is")
    parser.add_argument("--inside", type=float, default=0.0, help="share mixed from places of one song")
    parser.add_argument("--low-drums", type=float, default=0.0, help="share of drums shifted down by up to an octave")
    parser.add_argument("--voiceless", type=float, default=0.12, help="share of examples that get no singer")
    parser.add_argument("--seed", type=int, default=0, help="of the data: another one where a new state sees an old pool")
    parser.add_argument("--new-data", action="store_true", help="go on with another seed, batch or frames than the state's")
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--accumulate", type=int, default=1, help="batches a step")
    parser.add_argument("--frames", type=int, default=64, help="crop length in hops")
    parser.add_argument("--muon-lr", type=float, default=0.008)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--momentum", type=float, default=0.998, help="of the average")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=1, help="processes that mix batches; 0: training itself does")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="the network in bfloat16, its weights and the loss in f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--save-minutes", type=float, default=5)
    args = parser.parse_args()

    start = time.monotonic()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    gpu = device.type != "cpu"
    if gpu:
        # TF32 in what --bf16 leaves in f32.
        torch.set_float32_matmul_precision("high")
    saved = torch.load(args.state, map_location="cpu", weights_only=True) if args.state.exists() else None
    if saved:
        refuse_other_data(saved, args)
    config = saved["config"] if saved else read_config(args.config or CONFIG)
    mixed = dict(seed=args.seed, batch=args.batch, frames=args.frames, accumulate=args.accumulate)
    state = State(config, args.muon_lr, args.adam_lr, device, **mixed)
    if saved:
        state.load(saved)
    for optimizer, lr in zip(state.optimizers, (args.muon_lr, args.adam_lr)):
        for group in optimizer.param_groups:
            group["peak"] = lr * group.get("scale", 1.0)
    length = args.frames * state.net.stft_kwargs["hop_length"]
    shares = dict(coherent=args.coherent, inside=args.inside, low_drums=args.low_drums, voiceless=args.voiceless)
    weights = read_weights(args.weights)
    holdout = read_holdout(args.holdout, args.pool)
    data = Batches(args.pool, holdout, weights, args.batch, length, state.batches, args.seed, **shares)
    if not saved:
        if args.init:
            state.net.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
        else:
            initialise(state.net, data)
        state.average.load_state_dict(state.net.state_dict())
    # Forked, workers share the pool.
    workers = dict(num_workers=args.workers, prefetch_factor=2, multiprocessing_context="fork") if args.workers else {}
    loader = iter(torch.utils.data.DataLoader(data, batch_size=None, pin_memory=gpu, **workers))
    compiled = torch.compile if args.compile else lambda function: function
    network, terms = compiled(fused.masks), compiled(balance)

    def masks(net, spectrum):
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            return network(net, spectrum).float()

    parameters = [p for p in state.net.parameters() if p.requires_grad]
    saving, seen = start, []
    offset, first = state.seconds, state.step
    while (elapsed := time.monotonic() - start) < 60 * args.minutes:
        factor = rate(elapsed / (60 * args.minutes), state.step, args.decay)
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
        parts = []
        for part in range(args.accumulate):
            target = next(loader).to(device, non_blocking=True)
            state.batches += 1
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
        if time.monotonic() - saving > 60 * args.save_minutes:
            saving = time.monotonic()
            state.save(args.state)
    state.save(args.state)


if __name__ == "__main__":
    main()
