"""Packs a pool into a small archive to move it to a machine with a GPU, and unpacks it there.

    python pack.py --pool POOL --archive ARCHIVE --megabytes 40
    python pack.py --unpack --archive ARCHIVE --pool POOL --jobs 16

Stems are Ogg Opus, stereo, of 48 kbit/s or more. Songs come first and whole, but for the held-out ones, which stay where `evaluate.py`
measures on them. The rest is shared out among the other kinds by `--weights`, as an excerpt from the middle of every folder, and if all
are whole, goes into the rate. Packing needs ffmpeg; unpacking needs the Python package soundfile instead.

`index.json` has the length of every stem in samples at 44.1 kHz. What is decoded is cut to it, so that the stems of a song stay aligned.
Existing parts of the pool are kept.
"""

import argparse
import json
import os
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.signal

from augment import WEIGHTS, Track, read_weights
from prepare import HOLDOUT, SAMPLE_RATE, held_out, kind, store, unfinished

KILOBITS = (48, 160)
SHORTEST_SECONDS = 12
# A silent stem costs next to nothing.
SILENT_COST = 0.1
PASSES = 4


class Source:
    """A folder of the pool; costs are seconds of one stem that sounds."""

    def __init__(self, folder):
        self.name, self.kind = folder.name, kind(folder.name)
        self.tracks = [Track(path) for path in sorted(folder.glob("*.npy"))]
        self.seconds = min(track.length for track in self.tracks) / SAMPLE_RATE
        sounding = sum(len(track.blocks) / 2 * SAMPLE_RATE / track.length for track in self.tracks)
        self.density = SILENT_COST * len(self.tracks) + (1 - SILENT_COST) * sounding
        self.cost = self.seconds * self.density

    def excerpt(self, seconds):
        """{stem: int16 [t, s]} of the middle."""
        length = round(min(seconds, self.seconds) * SAMPLE_RATE)
        start = (round(self.seconds * SAMPLE_RATE) - length) // 2
        return {track.path.stem: track.audio[start : start + length] for track in self.tracks}


def shared(budget, wanted):
    """{name: part} of a budget for {name: (weight, most)}: what one cannot use goes to the others."""
    out, rest = {}, dict(wanted)
    while rest:
        each = budget / sum(weight for weight, _ in rest.values())
        full = {name: most for name, (weight, most) in rest.items() if weight * each >= most}
        if not full:
            return out | {name: weight * each for name, (weight, _) in rest.items()}
        out |= full
        budget -= sum(full.values())
        rest = {name: rest[name] for name in rest if name not in full}
    return out


def chosen(sources, weights, budget):
    """[(source, seconds)] that cost no more than `budget`."""
    out = []
    for source in sources:
        if source.kind == "song" and source.cost <= budget:
            out.append((source, source.seconds))
            budget -= source.cost
    kinds = {name: [source for source in sources if source.kind == name] for name in weights if name != "song"}
    most = {name: (weights[name], sum(source.cost for source in group)) for name, group in kinds.items() if group and weights[name]}
    for name, part in shared(budget, most).items():
        group = kinds[name]
        shortest = sum(source.density * min(SHORTEST_SECONDS, source.seconds) for source in group) / len(group)
        count = min(int(part / shortest + 1e-6), len(group))
        # Where all excerpts would be too short, some folders, from all over the kind.
        group = [group[i * len(group) // count] for i in range(count)]
        parts = shared(part, {source: (source.density, source.cost) for source in group})
        out += [(source, cost / source.density) for source, cost in parts.items()]
    return out


def encode(audio, path, kilobits):
    # Low delay is CELT throughout: changing over to and from SILK moves drums by two samples.
    rate = ["-c:a", "libopus", "-application", "lowdelay", "-vbr", "constrained", "-b:a", f"{kilobits:.0f}k"]
    command = ["ffmpeg", "-v", "error", "-y", "-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "2", "-i", "-", "-threads", "1", *rate, path]
    subprocess.run(command, input=np.ascontiguousarray(audio).tobytes(), check=True)


def decode(path, length):
    """int16 [t, s] of so many samples."""
    import soundfile

    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    common = int(np.gcd(rate, SAMPLE_RATE))
    audio = scipy.signal.resample_poly(audio, SAMPLE_RATE // common, rate // common, axis=0)[:length]
    audio = np.pad(audio, ((0, length - len(audio)), (0, 0)))
    return np.round(32768 * audio).clip(-32768, 32767).astype(np.int16)


def write(archive, plan, kilobits, jobs):
    """Bytes of the archive."""
    shutil.rmtree(archive, ignore_errors=True)
    archive.mkdir(parents=True)
    index = {}
    with ThreadPoolExecutor(jobs) as threads:
        running = []
        for source, seconds in plan:
            (archive / source.name).mkdir()
            for stem, audio in source.excerpt(seconds).items():
                index.setdefault(source.name, {})[stem] = len(audio)
                running.append(threads.submit(encode, audio, archive / source.name / f"{stem}.opus", kilobits))
        for job in running:
            job.result()
    (archive / "index.json").write_text(json.dumps(index, indent=1))
    return sum(path.stat().st_size for path in archive.rglob("*") if path.is_file())


def pack(args):
    if args.archive.exists():
        raise SystemExit(f"{args.archive} exists already")
    weights = read_weights(args.weights)
    folders = [f for f in sorted(args.pool.iterdir()) if not held_out(f.name, HOLDOUT) and weights.get(kind(f.name)) and any(f.glob("*.npy"))]
    sources = [Source(folder) for folder in folders]
    limit, whole = args.megabytes * 1e6, sum(source.cost for source in sources)
    lowest, highest = KILOBITS
    scale = 0.95
    temporary = args.archive.with_name(f"{args.archive.name}-unfinished")
    for _ in range(PASSES):
        seconds = scale * limit / (125 * lowest)
        kilobits = min(highest, max(lowest, lowest * seconds / whole))
        plan = chosen(sources, weights, seconds)
        size = write(temporary, plan, kilobits, args.jobs)
        print(f"{sum(s * source.density for source, s in plan) / 60:.0f} of {whole / 60:.0f} minutes at {kilobits:.0f} kbit/s: {size / 1e6:.1f} MB", flush=True)
        if size <= limit and (size > 0.93 * limit or kilobits == highest):
            break
        scale *= 0.97 * limit / size
    if size > limit or not plan:
        shutil.rmtree(temporary)
        raise SystemExit(f"no archive of {args.megabytes:g} MB: the last pass had {len(plan)} folders and {size / 1e6:.1f} MB")
    temporary.rename(args.archive)
    for name in weights:
        group = [(source, s) for source, s in plan if source.kind == name]
        if count := sum(source.kind == name for source in sources):
            print(f"{name:8} {len(group):4} of {count:4} folders {sum(s for _, s in group) / 60:6.1f} minutes")


def restore(source, stems, folder):
    temporary = unfinished(folder)
    for stem, length in stems.items():
        store(decode(source / f"{stem}.opus", length), temporary / f"{stem}.npy")
    # An excerpt may be silent.
    if temporary.exists():
        temporary.rename(folder)


def unpack(args):
    index = json.loads((args.archive / "index.json").read_text())
    args.pool.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs) as processes:
        running = [
            processes.submit(restore, args.archive / name, stems, args.pool / name)
            for name, stems in index.items()
            if not (args.pool / name).exists()
        ]
        for job in running:
            job.result()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--weights", default=WEIGHTS, help="shares by kind of source of what the songs leave")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--unpack", action="store_true")
    args = parser.parse_args()
    unpack(args) if args.unpack else pack(args)


if __name__ == "__main__":
    main()
