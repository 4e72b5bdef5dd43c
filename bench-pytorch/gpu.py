"""Parity, time per pass and ceilings on one GPU, ours and PyTorch alternately. Called by bench-pytorch/gpu."""

import argparse
import json
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))

RATE = 44_100
# Ours: precision, whether with our own CUDA kernels, and SNR in dB against f32 on the CPU that it must reach.
OURS = {
    "ours, f32": ("f32", False, 80),
    "ours, f32, own kernels": ("f32", True, 80),
    "ours, f16": ("f16", False, 38),
    "ours, f16, own kernels": ("f16", True, 38),
    "ours, bf16": ("bf16", False, 38),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cli", required=True)
    parser.add_argument("--references", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=lambda text: [float(n) for n in text.split(",")], default=[1, 2, 4, 8, 11])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; medians are reported")
    parser.add_argument("--runs", type=int, default=5, help="passes a turn, after two to warm up")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that nothing is broken")
    parser.add_argument("--json", type=Path, help="file for all figures; written after each part, so that an interrupted run leaves some")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which nothing more is begun")
    args = parser.parse_args()
    args.until = time.monotonic() + args.limit
    warnings.simplefilter("ignore")

    import cases
    import generate
    import reference
    import torch

    if args.device == "cpu":
        # The CPU has its own kernels, which have no f16.
        for way in [way for way, (precision, kernels, _) in OURS.items() if kernels or precision == "f16"]:
            del OURS[way]
    torch_device = torch.device(args.device)
    if torch_device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("this PyTorch sees no CUDA device: install one built for CUDA into the environment, or try --device cpu --tiny")
    name = "full_bs_song" if args.tiny else "full_bs_default_2s"
    case = next(case for case in cases.full() if case["name"] == name)
    model = reference.build(case, reference.use(case["package"], args.references))
    machine = describe(torch_device)
    print(machine)
    out = {"machine": machine, "model": name, "parity": [], "passes": [], "ceilings": {}}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        generate.write_weights(case, model, folder)
        (folder / "model.yaml").write_text(generate.yaml_text(case))
        signal = generate.signal(case, int(RATE * max(args.seconds)))
        model = make_fastest(model).to(torch_device)
        # The most wanted figures first: a machine may be lent for minutes only.
        parts = {
            "parity": lambda: parity(args, model, signal[:, :RATE * 4], folder, torch_device),
            "ceilings": lambda: ceilings(torch_device, args.tiny),
            "hops": lambda: hops(args, folder),
            "passes": lambda: passes(args, model, signal, folder, torch_device),
        }
        for part, measure in parts.items():
            if is_over(args, part):
                continue
            out[part] = measure()
            if args.json:
                args.json.write_text(json.dumps(out, indent=1) + "\n")
    short = [row["what"] for row in out["parity"] if row["db"] < row["least_db"]]
    if short:
        sys.exit(f"short of the SNR that it must reach: {', '.join(short)}")


def is_over(args, what):
    """Whether the time is up, which is said once for each part that is left out."""
    over = time.monotonic() > args.until
    if over:
        print(f"left out, because the time is up: {what}", flush=True)
    return over


def describe(device):
    """Card, driver, versions."""
    import torch

    if device.type != "cuda":
        return f"{device}, PyTorch {torch.__version__}: a dry run, its figures mean nothing"
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True)
    card = torch.cuda.get_device_properties(device)
    return (f"{card.name}, {card.total_memory / 2**30:.0f} GiB, driver {driver.stdout.split()[0] if driver.stdout else '?'}, "
            f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}")


def make_fastest(model):
    """Makes PyTorch as fast as it can be: attention without the references' choice of kernels, rotary angles cached."""
    import torch.nn.functional as F

    for module in model.modules():
        if hasattr(module, "cache_if_possible"):
            module.cache_if_possible = True
        if hasattr(module, "flash_attn"):
            module.forward = lambda q, k, v: F.scaled_dot_product_attention(q, k, v)
    return model


def ways(model, device):
    """Variants of a PyTorch pass, from a waveform on the host to stems on the host."""
    import torch

    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    compiled = torch.compile(model)

    def run(net, dtype):
        def go(chunk):
            with torch.inference_mode(), torch.autocast(device.type, dtype or half, enabled=dtype is not None):
                return net(chunk.to(device)).float().cpu()
        return go

    torch.backends.cuda.matmul.allow_tf32 = False
    short = str(half).removeprefix("torch.").replace("float", "f")
    return {"PyTorch f32": run(model, None), f"PyTorch {short} autocast, SDPA": run(model, half),
            f"PyTorch {short} autocast, compiled": run(compiled, half)}


def ours(args, folder, precision, kernels, *command):
    """Runs the program and returns what it prints."""
    environment = os.environ | {"NULLSUM_CUDA_KERNELS": "fused" if kernels else "off"}
    command = [args.cli, *command, "--model", folder / "model.ckpt", "--config", folder / "model.yaml", "--precision", precision]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def parity(args, model, signal, folder, device):
    """SNR of the stems of a few seconds: ours on the device and PyTorch on the device, against ours in f32 on the CPU, which tests/parity
    holds to the references."""
    song = folder / "song.wav"
    write_wav(song, signal)

    def stems(device, precision, kernels=False):
        target = folder / f"{device}-{precision}-{kernels}".replace(":", "")
        ours(args, folder, precision, kernels, song, "--device", device, "-o", target, "--bits", "float", "--lossless=off", "--overlap", "1",
             "--chunk", f"{signal.shape[1]}", "--batch", "1", "--quiet")
        return [x for file in sorted(target.glob("*.wav")) for x in read_wav(file)]

    exact = stems("cpu", "f32")
    rows = []
    print("\n| Stems of 4 s against f32 on the CPU | SNR | Must reach |\n|---|---|---|")
    for way, (precision, kernels, least) in OURS.items():
        try:
            found = stems(args.device, precision, kernels)
        except RuntimeError as error:
            print(f"| {way} | does not run: {error} | {least} dB |", flush=True)
            rows.append({"what": way, "db": -math.inf, "least_db": least})
            continue
        rows.append({"what": way, "db": snr_db(exact, found), "least_db": least})
        print(f"| {way} | {rows[-1]['db']:.1f} dB | {least} dB |", flush=True)
    return rows


def hops(args, folder):
    """Time of a live hop in each tier, and the latency that follows."""
    rows = []
    print("\n| Live tier | What | Hop | Latency | Load |\n|---|---|---|---|---|")
    for way, (precision, kernels, _) in OURS.items():
        if is_over(args, f"hops of {way}"):
            break
        try:
            report = ours(args, folder, precision, kernels, "tiers", "--device", args.device, "--seconds", 1 if args.tiny else 6, "--json")
        except RuntimeError as error:
            print(f"| | {way} | does not run: {str(error).splitlines()[0][:160]} | | |", flush=True)
            continue
        for line in filter(None, report.splitlines()):
            row = json.loads(line) | {"what": way}
            if "hop_cost_seconds" not in row:
                continue
            rows.append(row)
            print(f"| {row['tier']} | {way} | {1e3 * row['hop_cost_seconds']:.2f} ms | {row['latency_ms']:.0f} ms | {row['load']:.2f} |", flush=True)
    return rows


def ceilings(device, tiny):
    """Measured limits of the card: half-precision products and copies."""
    import torch

    n = 512 if tiny else 8192
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    a, b = (torch.randn(n, n, device=device, dtype=half) for _ in range(2))
    x = torch.empty((1 << 22) if tiny else (1 << 30), dtype=torch.uint8, device=device)
    out = {"half_tflops": 2 * n**3 / best(lambda: a @ b, device) / 1e12, "copy_gb_per_s": 2 * x.numel() / best(x.clone, device) / 1e9}
    print(f"\nCeilings: {out['half_tflops']:.3g} TFLOP/s in half-precision products of {n}, {out['copy_gb_per_s']:.3g} GB/s in copies")
    return out


def best(work, device):
    """Seconds of the best of some runs."""
    import torch

    times = []
    for _ in range(12):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[2:])


def passes(args, model, signal, folder, device):
    """Time of one chunk, all variants alternately."""
    rows = []
    print("\n| Chunk | What | Median pass | Times real time | Slower than the best |\n|---|---|---|---|---|")
    pytorch = ways(model, device)
    for seconds in args.seconds:
        chunk = signal[None, :, :int(RATE * seconds)]

        def torch_turn(way):
            for _ in range(2):
                way(chunk)
            times = []
            for _ in range(args.runs):
                started = time.perf_counter()
                way(chunk)
                times.append(time.perf_counter() - started)
            return statistics.median(times)

        def our_turn(precision, kernels, _):
            report = ours(args, folder, precision, kernels, "bench", "--device", args.device, "--json", "--seconds", seconds,
                          "--runs", args.runs, "--warmup", 2)
            return json.loads(report)["median_seconds"]

        turns = {name: lambda way=way: our_turn(*way) for name, way in OURS.items()}
        turns |= {name: lambda way=way: torch_turn(way) for name, way in pytorch.items()}
        found = {name: [] for name in turns}
        for _ in range(args.rounds):
            if is_over(args, f"turns of {seconds:g} s"):
                break
            for name, turn in list(turns.items()):
                try:
                    found[name].append(turn())
                except Exception as error:  # noqa: BLE001  # a variant that fails gets a row that says so
                    print(f"| {seconds:g} s | {name} | does not run: {str(error).splitlines()[0][:160]} | | |", flush=True)
                    del turns[name], found[name]
        medians = {name: statistics.median(times) for name, times in found.items() if times}
        for name, median in medians.items():
            rows.append({"seconds": seconds, "what": name, "median_seconds": median, "all": found[name]})
            print(f"| {seconds:g} s | {name} | {1e3 * median:.1f} ms | {seconds / median:.1f} × | {median / min(medians.values()):.2f} × |",
                  flush=True)
    return rows


def snr_db(expected, found):
    signal = sum(x * x for x in expected)
    error = sum((x - y) ** 2 for x, y in zip(expected, found, strict=True))
    return 10 * math.log10(signal / error) if error else math.inf


def write_wav(path, signal):
    """Float WAV of [channels, samples]."""
    data = signal.T.contiguous().numpy().astype("<f4").tobytes()
    channels = signal.shape[0]
    form = struct.pack("<HHIIHH", 3, channels, RATE, RATE * channels * 4, channels * 4, 32)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def read_wav(path):
    """Samples of a float WAV, interleaved."""
    data = path.read_bytes()
    at = 12
    while data[at:at + 4] != b"data":
        at += 8 + struct.unpack_from("<I", data, at + 4)[0]
    size = struct.unpack_from("<I", data, at + 4)[0]
    return struct.unpack_from(f"<{size // 4}f", data, at + 8)


if __name__ == "__main__":
    main()
