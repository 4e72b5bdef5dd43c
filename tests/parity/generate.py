#!/usr/bin/env python3
"""Writes parity cases: seeded random weights, and what the reference packages make of them.

Each case is a folder with `model.ckpt` or `model.safetensors`, `model.yaml` in the layout of MSST, and
`case.safetensors` (README.md says what is in it). Runs one process a reference package.
"""

import argparse
import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cases; those of the same name are replaced")
    parser.add_argument("--set", choices=["fixtures", "full", "none"], default="fixtures")
    parser.add_argument("--heavy", action="store_true", help="with --set full: also the default model on 8 s (several GB)")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random configurations besides")
    parser.add_argument("--random-seed", type=int, default=0)
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose name contains TEXT")
    parser.add_argument("--references", type=Path, default=Path(sys.prefix, "references"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", metavar="PACKAGE", help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.worker:
        work(args, json.load(sys.stdin))
        return
    wanted = {"fixtures": cases.fixtures, "full": lambda: cases.full(args.heavy), "none": list}[args.set]()
    wanted = [c for c in wanted + cases.drawn(args.random, args.random_seed) if args.only in c["name"]]
    args.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for package in dict.fromkeys(c["package"] for c in wanted):
        command = [sys.executable, __file__, "--worker", package, "--out", args.out, "--references", args.references,
                   "--threads", args.threads]
        mine = json.dumps([c for c in wanted if c["package"] == package])
        failed |= subprocess.run([str(c) for c in command], input=mine, text=True).returncode != 0
    sys.exit(failed)


def work(args, wanted):
    warnings.simplefilter("ignore")
    import torch
    import reference

    torch.set_num_threads(args.threads)
    modules = reference.use(args.worker, args.references)
    for case in wanted:
        write_case(case, modules, args.out / case["name"])


def write_case(case, modules, folder):
    import torch
    import reference
    from safetensors.torch import save_file

    model = reference.build(case, modules)
    samples = case["samples"]
    chunk = signal(case, samples)
    read = reference.Reading(model, chunk)
    valid = read.output.shape[-1]

    installed, version = reference.PACKAGES[case["package"]]
    facts = dict(case=case["name"], kind=case["kind"], package=case["package"], installed=f"{installed} {version}",
                 torch=torch.__version__, generator="tests/parity/generate.py", seed=case["seed"],
                 tolerance_db=case["tolerance_db"], demix_tolerance_db=80, valid_samples=valid, bins=read.bins,
                 wrap=case["weights"]["wrap"], prefix=case["weights"]["prefix"], dtype=case["weights"]["dtype"])
    tensors = dict(chunk=chunk, spec=read.spec, mask=read.mask, output=torch.nn.functional.pad(read.output, (0, samples - valid)))
    if case["check"] != "none":
        exact = reference.Reading(reference.in_double(model), chunk.double())
        noise = [reference.snr_db(exact.mask, read.mask), reference.snr_db(exact.output, read.output)]
        facts["reference_mask_db"], facts["reference_output_db"] = (round(db, 1) for db in noise)
        # What single precision costs the reference, nobody else can do better by design.
        facts["tolerance_db"] = min(case["tolerance_db"], math.floor(min(noise)) - 6)
    if case["check"] == "all":
        assert facts["tolerance_db"] == case["tolerance_db"], f"{case['name']} is ill-conditioned: {facts}"
        name, change = reference.deafest_tensor(model, chunk, read.mask, case.get("inert"))
        facts["deafest_tensor"], facts["deafest_change_db"] = name, round(change, 1)
        assert change > -case["tolerance_db"] + 15, f"{case['name']}: {name} does not matter ({change:.0f} dB)"
    size = read.mask.square().mean().sqrt().item()
    assert 0.05 < size < 20, f"{case['name']}: degenerate mask, rms {size}"
    if case.get("demix"):
        songs(case, model, tensors, facts)

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    write_weights(case, model, folder)
    (folder / "model.yaml").write_text(yaml_text(case))
    # One entry: the order of several is not reproducible.
    metadata = {"facts": json.dumps(facts, sort_keys=True)}
    save_file({k: v.contiguous().float() for k, v in tensors.items()}, folder / "case.safetensors", metadata)
    line = f"{case['name']:32} {case['package']:20} mask rms {size:.2f}"
    if "reference_mask_db" in facts:
        line += f", in single precision {facts['reference_mask_db']} dB (mask), {facts['reference_output_db']} dB (output)"
    if "deafest_tensor" in facts:
        line += f"; least heard: {facts['deafest_tensor']}, {facts['deafest_change_db']} dB"
    print(line, flush=True)


def signal(case, samples, offset=0):
    """Seeded tones over noise, different in each channel: [s, samples]."""
    import torch

    source = torch.Generator().manual_seed(case["seed"] + 1 + offset)
    channels = 2 if case["model"].get("stereo") else 1
    t = torch.arange(samples, dtype=torch.float64)
    out = 0.1 * torch.randn(channels, samples, generator=source, dtype=torch.float64)
    for _ in range(4):
        pitch = 0.5 * torch.rand(1, generator=source, dtype=torch.float64) ** 2
        level, phase = torch.rand(2, channels, 1, generator=source, dtype=torch.float64)
        out += 0.2 * level * torch.sin(2 * math.pi * (pitch * t + phase))
    return (out + 0.02).float()


def songs(case, model, tensors, facts):
    """`mixture`, and for each entry of `demix` the stems of its first `length` samples."""
    from demix import demix, with_big_shifts, with_tta

    mixture = signal(case, max(s["length"] for s in case["demix"]), offset=1)
    tensors["mixture"], facts["demix"] = mixture, []
    for i, song in enumerate(case["demix"]):
        part, key = mixture[:, :song["length"]], f"demix.{i}"
        arguments = (model, part, case["samples"], song["overlap"])
        if song.get("tta"):
            stems, weight = with_tta(*arguments)
        elif song.get("shifts"):
            stems, weight = with_big_shifts(*arguments, song["shifts"])
        else:
            stems, weight = demix(*arguments)
        tensors[key] = stems
        facts["demix"].append(dict(song, tensor=key, chunk=case["samples"], lost=(weight == 0).nonzero()[:, 0].tolist()))


def write_weights(case, model, folder):
    import torch
    from safetensors.torch import save_file

    how = case["weights"]
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[how["dtype"]]
    state = {how["prefix"] + k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items() if torch.is_tensor(v)}
    if how["format"] == "safetensors":
        save_file({k: v.clone() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    else:
        wrapped = {how["wrap"]: state, "epoch": 3} if how["wrap"] else state
        torch.save(wrapped, folder / "model.ckpt")


def yaml_text(case):
    """The config as MSST's users write it; `bands` picks how sequences are spelt."""
    import yaml

    style, model, samples = case["bands"], dict(case["model"]), case["samples"]
    for key, value in model.items():
        if isinstance(value, list) and "tuple" in style:
            model[key] = tuple(value)
    model.update(attn_dropout=0.1, ff_dropout=0.1, flash_attn=True)
    stems = cases.STEMS[-model["num_stems"]:]
    single = model["num_stems"] == 1
    config = dict(
        audio=dict(chunk_size=samples, num_channels=2 if model["stereo"] else 1, sample_rate=model.get("sample_rate", 44100),
                   n_fft=model["stft_n_fft"], hop_length=model["stft_hop_length"], min_mean_abs=0.001),
        model=model,
        training=dict(batch_size=1, instruments=["vocals", "other"] if single else stems, target_instrument="vocals" if single else None,
                      use_amp=False, lr=1.0e-5, optimizer="adam"),
        inference=dict(batch_size=1, num_overlap=case.get("demix", [dict(overlap=2)])[-1]["overlap"]),
    )
    if case.get("chunk_key") == "inference":
        # The value in `inference` wins over the one in `audio`.
        config["inference"]["chunk_size"], config["audio"]["chunk_size"] = samples, 2 * samples
    flow = None if style.startswith("flow") else False
    return yaml.dump(config, sort_keys=False, default_flow_style=flow)


if __name__ == "__main__":
    main()
