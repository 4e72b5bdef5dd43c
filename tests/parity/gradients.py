#!/usr/bin/env python3
"""Writes the goldens of training: loss and gradients that the reference packages compute.

A golden is one `gradients.safetensors`: crops `x` [b, s, samples], `target` [b, n, s, samples], and the gradient of every parameter
under `gradient.{name}`, computed in double precision. The header entry `facts` says the loss, its parts, the settings of the loss, versions, and
what single precision costs the reference itself. Weights and YAML are those of the parity case of the same name where there is one, and else are
written beside the golden.

    tests/parity/.venv/bin/python tests/parity/gradients.py --out tests/fixtures/train
"""

import argparse
import functools
import json
import subprocess
import sys
import warnings
from pathlib import Path

import cases

# Windows, and a hop, that fit the tiny cases of `cases.fixtures`.
TINY = dict(multi_stft_resolutions_window_sizes=[64, 48, 32, 24, 19], multi_stft_hop_size=7, multi_stft_resolution_loss_weight=0.8)
SAMPLES, BATCH = 150, 2


def own_cases():
    """Cases that only training needs: the references' default loss, on their transform."""
    small = dict(dim=6, depth=1, stft_n_fft=2048, stft_win_length=2048, stft_hop_length=441, mask_estimator_depth=1)
    return [
        cases.case("bs_seed_default_loss", "lossless-bs-roformer", "bs", dict(small, stereo=False, freqs_per_bands=[25, 200, 800]), samples=5000, check="none"),
        cases.case("bs_lucid_default_loss", "bs-roformer", "bs", dict(small, num_residual_streams=2, freqs_per_bands=[25, 1000]), samples=4500, check="none"),
        cases.case("mel_lucid_default_loss", "bs-roformer", "mel", dict(small, dim=4, stereo=False, num_bands=8, add_value_residual=True, depth=2), samples=4600, check="none"),
    ]


def all_cases():
    tiny = [dict(case, samples=SAMPLES, loss=TINY) for case in cases.fixtures() if not case.get("demix")]
    return tiny + [dict(case, loss={}, own=True) for case in own_cases()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose name contains TEXT")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random configurations besides, with their weights")
    parser.add_argument("--references", type=Path, default=Path(sys.prefix, "references"))
    parser.add_argument("--worker", metavar="PACKAGE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args, json.load(sys.stdin))
        return
    drawn = [dict(case, loss=loss_of(case), own=True) for case in cases.drawn(args.random)]
    wanted = [c for c in all_cases() + drawn if args.only in c["name"]]
    failed = False
    for package in dict.fromkeys(c["package"] for c in wanted):
        command = [sys.executable, __file__, "--worker", package, "--out", args.out, "--references", args.references]
        mine = json.dumps([c for c in wanted if c["package"] == package])
        failed |= subprocess.run([str(c) for c in command], input=mine, text=True).returncode != 0
    sys.exit(failed)


def loss_of(case):
    """Windows around a random case's own."""
    n_fft = case["model"]["stft_n_fft"]
    return dict(TINY, multi_stft_resolutions_window_sizes=[2 * n_fft, n_fft, n_fft // 2, n_fft // 3])


def work(args, wanted):
    warnings.simplefilter("ignore")
    import torch
    import reference

    torch.set_num_threads(1)
    modules = reference.use(args.worker, args.references)
    for case in wanted:
        write(case, modules, args.out / case["name"])


def write(case, modules, folder):
    import torch
    import generate
    import reference
    from safetensors.torch import save_file

    model = reference.build(case, modules)
    single = build_with_loss(model, case)
    x = torch.stack([generate.signal(case, case["samples"], offset=10 + i) for i in range(BATCH)])
    stems = case["model"]["num_stems"]
    target = torch.stack([
        torch.stack([generate.signal(case, case["samples"], offset=100 + i * stems + n) for n in range(stems)]) for i in range(BATCH)])
    _, _, rounded = gradients_of(single, case, x, target)
    double = reference.in_double(single)
    double.zero_grad()
    double.multi_stft_window_fn = functools.partial(torch.hann_window, dtype=torch.float64)
    # Hyper-connections and PoPE turn to single precision in between; here they stay in double.
    cast, torch.Tensor.float = torch.Tensor.float, lambda self: self
    try:
        loss, parts, exact = gradients_of(double, case, x.double(), target.double())
    finally:
        torch.Tensor.float = cast
    tensors = {"x": x, "target": target} | {f"gradient.{name}": g.float().contiguous() for name, g in exact.items()}
    installed, version = reference.PACKAGES[case["package"]]
    facts = dict(case=case["name"], installed=f"{installed} {version}", torch=torch.__version__, generator="tests/parity/gradients.py",
                 seed=case["seed"], loss=loss, waveform=parts[0], stft=parts[1], settings=case["loss"], whole_crop=whole_crop(case),
                 single_error=largest_error(exact, rounded))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    if case.get("own"):
        generate.write_weights(case, model, folder)
        (folder / "model.yaml").write_text(generate.yaml_text(case))
    save_file(tensors, folder / "gradients.safetensors", {"facts": json.dumps(facts, sort_keys=True)})
    print(f"{case['name']:32} {case['package']:20} loss {loss:.6f}, single precision costs {facts['single_error']:.1e}", flush=True)


def gradients_of(model, case, x, target):
    """Loss, its parts, and the gradient of every parameter."""
    import torch

    loss, parts = evaluate(model, case, x, target)
    loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name] = (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).clone()
    return loss.item(), parts, found


def largest_error(exact, rounded):
    """What single precision costs the reference itself: the largest relative error of a parameter's gradient.

    Gradients that are nothing but rounding, such as those of parameters without effect, do not count.
    """
    whole = sum(g.square().sum() for g in exact.values()).sqrt()
    errors = [((rounded[name] - g).norm(), g.norm()) for name, g in exact.items()]
    return max((error / norm).item() for error, norm in errors if error > 1e-7 * whole)


def whole_crop(case):
    """Whether the loss counts the whole crop; MSST's BS-RoFormer gives its inverse STFT a length."""
    return case["package"] == "msst" and case["kind"] == "bs" or bool(case["model"].get("match_input_audio_length"))


def build_with_loss(model, case):
    """The model with the settings of the case's loss, ready for gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("rotary_embed.freqs"))
    settings = case["loss"]
    if not settings or not hasattr(model, "multi_stft_n_fft"):
        return model
    model.multi_stft_resolutions_window_sizes = tuple(settings["multi_stft_resolutions_window_sizes"])
    model.multi_stft_resolution_loss_weight = settings["multi_stft_resolution_loss_weight"]
    if hasattr(model, "multi_stft_kwargs"):
        model.multi_stft_kwargs["hop_length"] = settings["multi_stft_hop_size"]
    else:
        model.multi_stft_hop_length = settings["multi_stft_hop_size"]
    return model


def evaluate(model, case, x, target):
    """The loss with its graph, and its parts."""
    import torch

    if hasattr(model, "multi_stft_n_fft"):
        if not case["model"]["stereo"]:
            x = x[:, 0]
        if case["model"]["num_stems"] == 1:
            target = target[:, 0]
        loss, (waveform, stft) = model(x, target=target, return_loss_breakdown=True)
        return loss, (waveform.item(), stft.item())
    # The stand-in for MSST has no loss of its own; this is the references'.
    found = model(x)
    target = target[..., : found.shape[-1]]
    waveform = torch.nn.functional.l1_loss(found, target)
    settings, stft = case["loss"], 0.0
    for window in settings["multi_stft_resolutions_window_sizes"]:
        options = dict(n_fft=max(window, case["model"]["stft_n_fft"]), win_length=window, hop_length=settings["multi_stft_hop_size"],
                       window=torch.hann_window(window, dtype=x.dtype), return_complex=True)
        stft = stft + torch.nn.functional.l1_loss(*(torch.stft(y.flatten(0, 2), **options) for y in (found, target)))
    return waveform + settings["multi_stft_resolution_loss_weight"] * stft, (waveform.item(), stft.item())


if __name__ == "__main__":
    main()
