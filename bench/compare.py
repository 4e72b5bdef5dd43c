"""Ours and PyTorch by turns: RTF, ratio, peak memory. Called by bench/compare."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))

HELD = {
    "avx2": dict(ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2", ONEDNN_MAX_CPU_ISA="AVX2"),
    "avx512": dict(ATEN_CPU_CAPABILITY="avx512", MKL_ENABLE_INSTRUCTIONS="AVX512", ONEDNN_MAX_CPU_ISA="AVX512_CORE"),
}


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cli", required=True)
    parser.add_argument("--references", required=True)
    parser.add_argument("--seconds", type=numbers, default=[2, 8])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", choices=sorted(HELD))
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    # Read when torch is loaded.
    os.environ.update(HELD.get(args.isa, {}))
    warnings.simplefilter("ignore")

    import cases
    import generate
    import reference
    import torch

    case = next(case for case in cases.full() if case["name"] == "full_bs_default_2s")
    model = reference.build(case, reference.use(case["package"], args.references))
    print(f"{processor()}, {os.cpu_count()} processors; PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print("| Chunk | Threads | What | RTF (median) | Slower than ours | Peak memory |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        generate.write_weights(case, model, folder)
        (folder / "model.yaml").write_text(generate.yaml_text(case))
        for seconds in args.seconds:
            chunk = generate.signal(case, 44_100 * seconds)[None]
            for threads in args.threads:
                compare(args, model, chunk, folder, seconds, threads)


def compare(args, model, chunk, folder, seconds, threads):
    import torch

    torch.set_num_threads(threads)

    def pytorch(dtype=None):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            model(chunk)
            started = time.perf_counter()
            model(chunk)
            return (time.perf_counter() - started) / seconds, None

    def ours(kernel):
        command = [args.cli, "bench", "--model", folder / "model.ckpt", "--config", folder / "model.yaml", "--json",
                   "--seconds", str(seconds), "--threads", str(threads), "--runs", "1", "--warmup", "1"]
        environment = dict(os.environ, **({"NULLSUM_KERNEL": kernel} if kernel else {}))
        report = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        return report["rtf"], report

    ways = {"ours": lambda: ours(None), "candle": lambda: ours("candle"), "PyTorch f32": pytorch}
    if args.bf16:
        ways["PyTorch bf16 autocast"] = lambda: pytorch("bf16")
    times, reports = {name: [] for name in ways}, {}
    for _ in range(args.rounds):
        for name, way in ways.items():
            rtf, report = way()
            times[name].append(rtf)
            reports[name] = report
    base = statistics.median(times["ours"])
    for name, found in times.items():
        report = reports[name]
        label = f"ours, {report['precision']}, {report['kernel']}" if name == "ours" else name
        # Of PyTorch it is the peak of this process so far: weights, and the largest pass up to now.
        peak = report["peak_rss_bytes"] if report else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        median = statistics.median(found)
        print(f"| {seconds} s | {threads} | {label} | {median:.3f} | {median / base:.2f} × | {peak / 1e6:.0f} MB |", flush=True)


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
