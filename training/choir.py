"""Vocals from recordings of single sung notes: choirs, backing voices and chops.

    python choir.py --out POOL --notes FOLDER[,FOLDER] [--songs 40]

Notes are audio files named after voice and key, such as `malevoice_oo_C#3.mp3`; LOG.md lists the recordings. They hold chords, sing slow
melodies, or are cut to a rhythm, and are mixed with reverb as in `singer.py`. Existing songs are kept.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from acoustic import trimmed, tuned
from prepare import SAMPLE_RATE, decode, unfinished
from singer import keep, melody, produced
from synthesize import CHORDS, MAJOR, MINOR

PITCHES = dict(c=0, d=2, e=4, f=5, g=7, a=9, b=11)
NAME = re.compile(r"(?:^|_)([a-g])(#|sharp|b|)(\d)(?=_|$)")
# Maximum shift of a note in semitones. A larger shift sounds like another singer.
REACH = 4


def voices(folders):
    """{name of a voice: {key: mono float32 [t]}} of what is named after a key."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".mp3", ".wav", ".flac")):
        name = path.stem.lower()
        if note := NAME.search(name):
            letter, accidental, octave = note.groups()
            key = 12 * int(octave) + 12 + PITCHES[letter] + {"": 0, "b": -1}.get(accidental, 1)
            audio = trimmed(decode(path))
            # Silence was trimmed to one sample.
            if len(audio) > 1:
                found.setdefault((path.parent, name[: note.start()]), {})[key] = audio
    return {voice: notes for voice, notes in found.items() if len(notes) > 3}


def note(rng, notes, key, seconds):
    """Mono [t] of the recorded note nearest to `key`; None if it is too far away."""
    nearest = min(notes, key=lambda k: abs(k - key))
    if abs(nearest - key) > REACH:
        return None
    audio = tuned(notes[nearest], 2 ** ((key - nearest + rng.normal(0, 0.06)) / 12))
    # Short ones begin in the middle of the vowel, as chops do.
    start = int(rng.uniform(0.1, 0.4) * len(audio)) if seconds < 0.4 else 0
    audio = audio[start : start + int(seconds * SAMPLE_RATE)].copy()
    for part, length in ((audio, 0.01), (audio[::-1], min(0.15, seconds / 4))):
        ramp = np.linspace(0, 1, min(len(part), int(length * SAMPLE_RATE)), dtype=np.float32)
        part[: len(ramp)] *= ramp
    return audio / max(np.abs(audio).max(), 1e-6)


def chords(rng, lowest):
    """(keys, beats) without end, in close harmony from `lowest` on."""
    scale, tonic, roots = (MAJOR, MINOR)[rng.integers(2)], int(rng.integers(12)), CHORDS[rng.integers(len(CHORDS))]
    beats = int(rng.choice([2, 4, 4, 8]))
    while True:
        for root in roots:
            pitches = [(tonic + scale[(root + third) % 7]) % 12 for third in (0, 2, 4)]
            keys = [lowest + (pitch - lowest) % 12 for pitch in pitches]
            yield keys[: int(rng.integers(2, 4))], beats


def sing(rng, notes, seconds):
    """(mono audio, pan, gain) of one voice's part."""
    step, length = 60 / rng.uniform(75, 140), int(seconds * SAMPLE_RATE)
    low, high = min(notes), max(notes)
    style = rng.random()
    spread = rng.uniform(0, 0.9)
    # Room for the longest note that begins before the end.
    tracks = [(np.zeros(length + 8 * SAMPLE_RATE, np.float32), pan, 1.0) for pan in (-spread, 0.0, spread)]
    harmony = chords(rng, int(rng.integers(low, max(low + 1, high - 12))))
    line = melody(rng, low, max(low + 7, high))
    pattern = rng.random(16) < rng.uniform(0.3, 0.7)
    at = 0.0
    while at < length:
        keys, beats = next(harmony)
        if style < 0.45:
            held = [(0.0, keys, beats)]
        elif style < 0.75:
            cuts = np.flatnonzero(np.resize(pattern, 4 * beats))
            held = [(cut / 4, keys if rng.random() < 0.6 else keys[:1], 0.25 * rng.choice([1, 1, 2])) for cut in cuts]
        else:
            held, beat = [], 0.0
            while beat < beats:
                span = float(rng.choice([0.5, 1, 1, 2]))
                held.append((beat, [next(line)], span))
                beat += span
        if rng.random() > 0.12:
            for beat, chord, span in held:
                start = int(at + beat * step * SAMPLE_RATE)
                for i, key in enumerate(chord):
                    if (audio := note(rng, notes, key, span * step * rng.uniform(0.8, 1.1))) is not None:
                        part = tracks[i % 3][0][start : start + len(audio)]
                        part += audio[: len(part)] * np.float32(rng.uniform(0.6, 1))
        at += beats * step * SAMPLE_RATE
    return tracks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--notes", required=True, help="folders, with commas")
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=24)
    args = parser.parse_args()
    found = voices([Path(folder) for folder in args.notes.split(",")])
    if not found:
        raise SystemExit(f"{args.notes}: no voice of four notes or more, in files named as malevoice_oo_C#3.mp3 is")
    print(f"{len(found)} voices: " + ", ".join(f"{name} {len(notes)}" for (_, name), notes in found.items()))
    ordered = list(found.values())
    args.out.mkdir(parents=True, exist_ok=True)
    for i in range(args.songs):
        folder = args.out / f"choir-{i:03}"
        if folder.exists():
            continue
        rng = np.random.default_rng([557, i])
        tracks = sing(rng, ordered[i % len(ordered)], args.seconds)
        temporary = unfinished(folder)
        keep(produced(rng, tracks), temporary / "vocals.npy")
        # Where no note is in reach, all is silent.
        if temporary.exists():
            temporary.rename(folder)


if __name__ == "__main__":
    main()
