"""Decode recorded stems to 44.1 kHz stereo int16 arrays, `<out>/<source>/<stem>.npy`, shape [t, s].

    python prepare.py --data DATA --out POOL [--sectoid DIR]

`DATA/songs/<song>/{drums,bass,other,vocals}.*` are aligned songs, `DATA/loose/vocals/*` voices without a song.
`--sectoid` takes the guitar tracks of Debian's fretsonfire-songs-sectoid as `other`. A stem that is silent
throughout is left out; `synthesize.py` writes its songs into the same layout.
"""

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

SAMPLE_RATE = 44100
STEMS = ("drums", "bass", "other", "vocals")
SILENCE = 1e-4
# Songs excluded from training.
HOLDOUT = ("sodium", "mdn-multitrack")
# Kinds of folders in the pool, by the name up to the first hyphen. Every other folder is a song.
KINDS = ("variant", "loose", "morph", "sung", "choir", "sectoid", "synth", "electro", "midi", "band")


def kind(name):
    prefix = name.split("-")[0]
    return prefix if prefix in KINDS else "song"


def held_out(name, holdout):
    """Whether a folder is one of the songs or voices `holdout`, or made from one, as `variant-sodium-2` is."""
    source = re.sub(r"^(variant|morph)-(.+)-\d+$", r"\2", name)
    return any(song in (name, source) or song == f"loose-{source}" for song in holdout)


def unfinished(folder):
    """A temporary folder that is renamed to `folder` when it is complete, so that the pool holds only complete folders."""
    temporary = folder.parent.parent / f"{folder.parent.name}-unfinished-{folder.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def decode(path):
    """Any file ffmpeg reads, as int16 [t, 2]."""
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-ac", "2", "-ar", str(SAMPLE_RATE), "-"],
        check=True,
        capture_output=True,
    ).stdout
    return np.frombuffer(raw, np.int16).reshape(-1, 2)


def store(audio, path):
    """Write `audio` unless it is silent; says what was done."""
    rms = float(np.sqrt(np.mean((audio.astype(np.float32) / 32768) ** 2)))
    seconds = len(audio) / SAMPLE_RATE
    if rms < SILENCE:
        print(f"{path.parent.name:28} {path.stem:8} {seconds:7.1f} s silent, left out")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, audio)
    print(f"{path.parent.name:28} {path.stem:8} {seconds:7.1f} s {20 * np.log10(rms):6.1f} dB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sectoid", type=Path)
    args = parser.parse_args()

    for song in sorted((args.data / "songs").iterdir()):
        for stem in STEMS:
            source = next(song.glob(f"{stem}.*"), None)
            if source is not None:
                store(decode(source), args.out / song.name / f"{stem}.npy")
    for source in sorted((args.data / "loose" / "vocals").glob("*.opus")):
        store(decode(source), args.out / f"loose-{source.stem}" / "vocals.npy")
    if args.sectoid:
        for source in sorted(args.sectoid.glob("*/guitar.ogg")):
            name = source.parent.name.lower().replace(" ", "-")
            store(decode(source), args.out / f"sectoid-{name}" / "other.npy")


if __name__ == "__main__":
    main()
