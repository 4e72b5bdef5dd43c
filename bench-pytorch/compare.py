"""Ours and PyTorch alternately: RTF, processor time, ratios, peak memory, SNR. Called by bench-pytorch/compare."""

import argparse
import json
import math
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
CHANNELS = 2
PYTORCH = "PyTorch f32"
# PyTorch stays in this process while ours runs. After a pass its threads spin for less than this by default (libgomp's for about
# 20 ms, libomp's for 200). OMP_WAIT_POLICY=active would make them spin during our pass.
SPIN_SECONDS = 0.5


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cli", required=True)
    parser.add_argument("--references", required=True)
    parser.add_argument("--seconds", type=numbers, default=[2, 8])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, choices=[0, 1], default=1)
    parser.add_argument("--isa", choices=sorted(HELD))
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--old", help="an older nullsum-cli, timed by turns with the new one")
    parser.add_argument("--no-pytorch", dest="pytorch", action="store_false")
    parser.add_argument("--no-candle", dest="candle", action="store_false")
    args = parser.parse_args()
    # Read when torch is loaded.
    os.environ.update(HELD.get(args.isa, {}))
    if args.isa:
        # Ours has the same names.
        os.environ.setdefault("NULLSUM_KERNEL", args.isa)
    warnings.simplefilter("ignore")

    import cases
    import generate
    import gpu
    import reference
    import torch

    case = next(case for case in cases.full() if case["name"] == "full_bs_default_2s")
    model = reference.build(case, reference.use(case["package"], args.references))
    print(f"{processor()}, {os.cpu_count()} processors; PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; "
          f"load average {os.getloadavg()[0]:.1f}; medians of {args.rounds}")
    print(f"PyTorch: eager, angles kept, its own choice of attention; {memory()}; {waiting()}")
    exact = PYTORCH if args.pytorch else "ours in f32"
    print(f"| Chunk | Threads | What | RTF | Slower than ours | Processor time | Its ratio | Peak memory | SNR to {exact} |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        generate.write_weights(case, model, folder)
        (folder / "model.yaml").write_text(generate.yaml_text(case))
        model = gpu.make_fastest(model)
        for seconds in args.seconds:
            for threads in args.threads:
                Comparison(args, model, folder, seconds, threads).run()


class Comparison:
    """One length of chunk on one number of threads."""

    def __init__(self, args, model, folder, seconds, threads):
        self.args, self.model, self.folder, self.seconds, self.threads = args, model, folder, seconds, threads
        self.chunk = None
        self.stems, self.turns = {}, {}

    def run(self):
        # Ours runs first: all others use its chunk.
        ways = {"f32": lambda: self.ours("f32")}
        if self.args.bf16:
            ways["bf16"] = lambda: self.ours("bf16")
        for precision in list(ways) if self.args.old else []:
            ways[f"old {precision}"] = lambda precision=precision: self.ours(precision, cli=self.args.old)
        if self.args.candle:
            ways["candle"] = lambda: self.ours("f32", "candle")
        if self.args.pytorch:
            ways[PYTORCH] = lambda: self.pytorch(PYTORCH)
        # Without such instructions PyTorch takes minutes per pass, which is no useful comparison.
        if self.args.pytorch and self.args.bf16 and multiplies_bf16():
            ways["PyTorch bf16 autocast"] = lambda: self.pytorch("PyTorch bf16 autocast", bf16=True)
        for _ in range(self.args.rounds):
            for name, way in ways.items():
                self.turns.setdefault(name, []).append(way())
        for name in ways:
            self.report(name)

    def ours(self, precision, kernel=None, cli=None):
        import numpy

        raw = self.folder / "stems.f32"
        command = [cli or self.args.cli, "bench", "--model", self.folder / "model.ckpt", "--config", self.folder / "model.yaml", "--json",
                   "--seconds", str(self.seconds), "--threads", str(self.threads), "--runs", "1", "--warmup", str(self.args.warmup),
                   "--precision", precision, "--stems", raw]
        environment = dict(os.environ, **({"NULLSUM_KERNEL": kernel} if kernel else {}))
        environment.pop("LD_PRELOAD", None)
        report = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        samples = numpy.fromfile(raw, dtype=numpy.float32).reshape(-1, CHANNELS, round(report["audio_seconds"] * 44_100))
        self.chunk = samples[0]
        self.stems[f"old {precision}" if cli else kernel or precision] = samples[1:]
        label = "candle, f32" if kernel else f"{'older' if cli else 'ours'}, {report['precision']}, {report['kernel']}"
        return label, report["median_seconds"], report["processor_seconds"], report["peak_rss_bytes"]

    def pytorch(self, name, bf16=False):
        import torch

        torch.set_num_threads(self.threads)
        chunk = torch.from_numpy(self.chunk.copy())[None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if name not in self.turns:
                self.model(chunk)
            started, processor = time.perf_counter(), time.process_time()
            stems = self.model(chunk)
            times = time.perf_counter() - started, time.process_time() - processor
        time.sleep(SPIN_SECONDS)
        self.stems[name] = stems[0].float().numpy().reshape(-1, *self.chunk.shape)
        # The peak of this process so far: weights, and the largest pass up to now.
        return name, *times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def report(self, name):
        wall, processor = self.medians(name)
        our_wall, our_processor = self.medians("f32")
        label, *_, peak = self.turns[name][-1]
        exact = PYTORCH if self.args.pytorch else "f32"
        snr = "" if name == exact else f"{snr_db(self.stems[exact], self.stems[name]):.1f} dB"
        print(f"| {self.seconds} s | {self.threads} | {label} | {wall / self.seconds:.3f} | {wall / our_wall:.2f} × | {processor:.2f} s "
              f"| {processor / our_processor:.2f} × | {peak / 1e6:.0f} MB | {snr} |", flush=True)

    def medians(self, name):
        return [statistics.median(turn[i] for turn in self.turns[name]) for i in (1, 2)]


def snr_db(expected, found):
    expected, found = expected.astype("float64"), found.astype("float64")
    return 10 * math.log10((expected**2).sum() / max(((expected - found) ** 2).sum(), 1e-300))


def memory():
    """The memory allocator of this process, as Linux reports it."""
    try:
        return "tcmalloc" if "tcmalloc" in Path("/proc/self/maps").read_text() else "the system's malloc"
    except OSError:
        return "the system's malloc"


def waiting():
    """How PyTorch's threads wait for each other."""
    said = [f"{name}={os.environ[name]}" for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME") if name in os.environ]
    return " ".join(said) or "OpenMP's default waiting"


def processor():
    return cpuinfo("model name") or platform.processor() or platform.machine()


def multiplies_bf16():
    """Whether the processor has AVX-512 BF16 or AMX."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpuinfo("flags").split())


def cpuinfo(key):
    """A field of the first processor in /proc/cpuinfo; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith(key))
    except (OSError, StopIteration, IndexError):
        return ""


if __name__ == "__main__":
    main()
