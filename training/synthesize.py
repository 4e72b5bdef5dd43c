"""Procedural songs as stems drums, bass and other, in the layout of `prepare.py`.

    python synthesize.py --out POOL --songs 60 --soundfonts A.sf2,B.sf3 --samples SAMPLES

Genre, tempo, key, chords, patterns, kits and instruments are drawn anew for every song. Most parts are rendered by
fluidsynth; some drums are sequenced from single hits, some basses are synthesised here. Song `i` depends on `i` alone
and is left as it is when it exists.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from midi import Score
from prepare import SAMPLE_RATE, decode, store, unfinished
from styles import SCORED

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
CHORDS = [(0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (0, 6, 5, 6), (0, 2, 3, 4), (0, 0, 3, 4), (1, 4, 0, 5), (0, 5, 1, 4), (0, 0, 0, 0)]
KITS = (0, 8, 16, 24, 25, 32, 40)
BASSES = (32, 33, 33, 34, 34, 35, 36, 37, 38, 39)
COMPING = (0, 1, 2, 3, 4, 5, 7, 16, 17, 18, 24, 25, 25, 26, 27, 27, 28, 29, 29, 30, 30, 81, 62)
LEADS = (11, 12, 13, 22, 26, 27, 29, 30, 40, 56, 57, 59, 61, 64, 65, 66, 68, 71, 73, 80, 81, 82, 84, 87)
PADS = (48, 49, 50, 51, 88, 89, 90, 92, 94, 95, 16, 19, 63)
DRUMS = 9


def melody(rng, degree, lengths):
    """A bar of a melody that wanders on from a degree: (step, length in sixteenths, degree, whether it sounds)."""
    step = int(rng.choice([0, 0, 2, 4]))
    while step < 16:
        length = int(rng.choice(lengths))
        degree = int(np.clip(degree + rng.choice([-2, -1, -1, 0, 1, 1, 2, 4, -4]), -3, 10))
        yield step, length, degree, rng.random() < 0.8
        step += length


class Song:
    """What the parts of one song share."""

    def __init__(self, seed, seconds):
        self.rng = rng = np.random.default_rng([77, seed])
        self.genre_name = list(SCORED)[rng.integers(len(SCORED))]
        self.genre = SCORED[self.genre_name]
        self.bpm = rng.uniform(*self.genre["bpm"])
        self.bars = int(np.ceil(seconds * self.bpm / 240))
        self.scale = MAJOR if rng.random() < 0.5 else MINOR
        self.tonic = int(rng.integers(12))
        self.sections = [CHORDS[rng.integers(len(CHORDS))] for _ in range(2)]

    def degree(self, bar):
        return self.sections[(bar // 8) % 2][bar % 4]

    def key(self, degree, octave):
        """MIDI key of a degree of the scale; octave 4 begins at middle C."""
        return 12 * (octave + 1) + self.tonic + self.scale[degree % 7] + 12 * (degree // 7)

    def beat(self, bar, step):
        """Step in sixteenths, swung and played by a hand."""
        swing = self.genre["swing"] if step % 2 else 0.0
        return max(0.0, bar * 4 + (step + swing * 2) / 4 + self.rng.normal(0, 0.006) * self.bpm / 60)

    def hits(self):
        """(bar, step, voice, velocity) of the drums, with variations, fills and rests."""
        rng, genre = self.rng, self.genre
        fill_every = int(rng.choice([4, 8]))
        ride = rng.random() < 0.3
        hat_steps = genre["hat"]
        for bar in range(self.bars):
            fill = bar % fill_every == fill_every - 1 and rng.random() < 0.8
            if bar % 16 in (14, 15) and rng.random() < 0.1:
                continue
            if bar % 8 == 0:
                yield bar, 0, "crash", 100
            for step in range(16):
                if fill and step >= 10:
                    if rng.random() < 0.75:
                        yield bar, step, str(rng.choice(["snare", "tom_hi", "tom_mid", "tom_lo"])), int(rng.normal(95, 12))
                    continue
                mark = genre["kick"][step]
                if mark == "x" and rng.random() < 0.96 or mark == "." and rng.random() < 0.03:
                    yield bar, step, "kick", int(rng.normal(108, 8))
                mark = genre["snare"][step]
                if mark != "." and rng.random() < 0.97:
                    yield bar, step, "snare", int(rng.normal(108 if mark == "x" else 50, 8))
                if hat_steps[step] == "x" and rng.random() < 0.95:
                    open_hat = step % 8 == 6 and rng.random() < 0.25
                    voice = "open" if open_hat else ("ride" if ride and (bar // 8) % 2 else "hat")
                    yield bar, step, voice, int(rng.normal(85 if step % 4 == 0 else 65, 8))

    def bassline(self):
        """(bar, step, key, sixteenths, velocity)"""
        rng = self.rng
        style = rng.choice(["root", "octave", "walk", "kick", "riff", "long"])
        octave = int(rng.choice([1, 1, 2]))
        riff = [(int(s), int(rng.choice([0, 0, 2, 4, 7, -1]))) for s in sorted(rng.choice(16, int(rng.integers(4, 8)), replace=False))]
        for bar in range(self.bars):
            root = self.degree(bar)
            if style == "root":
                notes = [(s, root, 2) for s in range(0, 16, 2)]
            elif style == "octave":
                notes = [(s, root + 7 * (s // 2 % 2), 2) for s in range(0, 16, 2)]
            elif style == "walk":
                notes = [(s, root + d, 4) for s, d in zip((0, 4, 8, 12), (0, 2, 4, int(rng.choice([5, 3, 6]))))]
            elif style == "kick":
                notes = [(s, root, 3) for s in range(16) if self.genre["kick"][s] == "x"] or [(0, root, 8)]
            elif style == "riff":
                notes = [(s, root + d, 2) for s, d in riff]
            else:
                notes = [(0, root, 14)]
            for step, degree, length in notes:
                if rng.random() < 0.95:
                    yield bar, step, self.key(degree, octave), length * rng.uniform(0.7, 1.0), int(rng.normal(100, 10))


def drum_score(song):
    keys = dict(kick=36, snare=38, hat=42, open=46, ride=51, crash=49, tom_hi=50, tom_mid=47, tom_lo=43)
    if song.rng.random() < 0.3:
        keys.update(kick=35, snare=40)
    score = Score(song.bpm)
    score.program(DRUMS, int(song.rng.choice(KITS)))
    for bar, step, voice, velocity in song.hits():
        score.note(DRUMS, keys[voice], velocity, song.beat(bar, step), 0.2)
    if song.rng.random() < 0.3:
        key = int(song.rng.choice([54, 70, 39, 56, 63]))
        for bar in range(song.bars):
            for step in range(0, 16, int(song.rng.choice([2, 4]))):
                score.note(DRUMS, key, 60, song.beat(bar, step), 0.2)
    return score


def bass_score(song):
    score = Score(song.bpm)
    score.program(0, int(song.rng.choice(BASSES)))
    for bar, step, key, length, velocity in song.bassline():
        score.note(0, key, velocity, song.beat(bar, step), length / 4)
    return score


def other_score(song):
    rng = song.rng
    score = Score(song.bpm)
    parts = [str(p) for p in rng.choice(["comp", "arp", "lead", "pad"], int(rng.integers(1, 4)), replace=False)]
    for channel, part in enumerate(parts):
        programs = dict(comp=COMPING, arp=COMPING + LEADS, lead=LEADS, pad=PADS)[part]
        score.program(channel, int(rng.choice(programs)), int(rng.integers(75, 110)), int(rng.integers(24, 104)))
        octave = int(rng.choice([3, 4, 4, 5]))
        rhythm = [s for s in range(16) if rng.random() < (0.75 if s % 4 == 0 else 0.3 if s % 2 == 0 else 0.1)] or [0]
        seventh = rng.random() < 0.3
        degree = int(rng.integers(0, 7))
        for bar in range(song.bars):
            if bar % 8 == 0:
                silent = rng.random() < 0.15
            if silent:
                continue
            root = song.degree(bar)
            chord = [root, root + 2, root + 4] + ([root + 6] if seventh else [])
            if part == "pad":
                for d in chord:
                    score.note(channel, song.key(d, octave), int(rng.normal(75, 8)), bar * 4, 3.9)
            elif part == "comp":
                for i, step in enumerate(rhythm):
                    until = rhythm[i + 1] if i + 1 < len(rhythm) else 16
                    beat = song.beat(bar, step)
                    for j, d in enumerate(chord):
                        score.note(channel, song.key(d, octave), int(rng.normal(85, 10)), beat + 0.01 * j, (until - step) / 4 * 0.85)
            elif part == "arp":
                for step in range(0, 16, 2):
                    d = chord[(step // 2) % len(chord)] + 7 * int(rng.random() < 0.2)
                    score.note(channel, song.key(d, octave), int(rng.normal(85, 10)), song.beat(bar, step), 0.45)
            else:
                for step, length, degree, sounds in melody(rng, degree, [2, 2, 4, 4, 6, 8]):
                    if sounds:
                        score.note(channel, song.key(degree, octave), int(rng.normal(95, 10)), song.beat(bar, step), length / 4 * 0.9)
    return score


def render(score, soundfont, rng, dry=False):
    """int16 [t, 2]; half the time with fluidsynth's room, unless `dry`"""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "a.mid", Path(folder) / "a.wav"
        score.write(midi)
        room = ["-R", "1" if rng.random() < 0.5 and not dry else "0", "-C", "1" if rng.random() < 0.3 and not dry else "0"]
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE), *room, "-F", str(wav), str(soundfont), str(midi)],
            check=True,
            capture_output=True,
        )
        return decode(wav)


def finish(audio):
    """Float [t, 2] to int16 at a peak of -1 dBFS."""
    return np.round(audio * (29203 / max(np.abs(audio).max(), 1e-6))).astype(np.int16)


class Samples:
    """Single hits by voice."""

    NAMES = dict(
        kick=("bd_*", "drum_heavy_kick*", "drum_bass_*", "elec_soft_kick*", "elec_hollow_kick*"),
        snare=("sn_*", "drum_snare_*", "elec_*snare*", "perc_snap*"),
        hat=("drum_cymbal_closed*", "drum_cymbal_pedal*", "elec_tick*", "elec_cymbal*"),
        open=("drum_cymbal_open*",),
        ride=("drum_cymbal_soft*", "drum_cymbal_hard*", "elec_triangle*"),
        crash=("drum_splash_*", "drum_cymbal_hard*"),
        tom_hi=("drum_tom_hi_*", "elec_fuzz_tom*", "tabla_na*"),
        tom_mid=("drum_tom_mid_*", "elec_wood*", "tabla_te*"),
        tom_lo=("drum_tom_lo_*", "tabla_ghe*"),
    )

    def __init__(self, folder):
        self.files = {v: sorted(f for n in names for f in folder.glob(n)) for v, names in self.NAMES.items()}
        self.loops = sorted(
            f for name in ("amen_full", "amen", "breakbeat", "compus", "mehackit1", "mehackit2", "perc1", "tabla", "industrial")
            for f in folder.glob(f"loop_{name}.flac")
        )

    def drums(self, song):
        rng = song.rng
        kit = {v: decode(files[rng.integers(len(files))]).astype(np.float32) / 32768 for v, files in self.files.items()}
        pan = {v: rng.uniform(-0.3, 0.3) for v in kit}
        length = int((song.bars * 4 + 4) * 60 / song.bpm * SAMPLE_RATE)
        out = np.zeros((length, 2), np.float32)
        for bar, step, voice, velocity in song.hits():
            at = int(song.beat(bar, step) * 60 / song.bpm * SAMPLE_RATE)
            hit = kit[voice][: max(0, min(length - at, 3 * SAMPLE_RATE))]
            gain = (velocity / 110) ** 2 * (0.4 if voice in ("hat", "open", "ride", "crash") else 1.0)
            out[at : at + len(hit)] += gain * hit * np.array([1 - pan[voice], 1 + pan[voice]], np.float32)
        return np.tanh(out * rng.uniform(0.7, 1.6))


def electric_bass(song):
    """A subtractive bass: an oscillator, an envelope, a low-pass that moves with it."""
    rng = song.rng
    wave = rng.choice(["saw", "square", "sine", "fm"])
    decay, release = rng.uniform(0.15, 2.0), 0.02
    brightness, drive = rng.uniform(2, 20), rng.uniform(0.8, 4)
    length = int((song.bars * 4 + 4) * 60 / song.bpm * SAMPLE_RATE)
    out = np.zeros(length, np.float32)
    for bar, step, key, sixteenths, velocity in song.bassline():
        at = int(song.beat(bar, step) * 60 / song.bpm * SAMPLE_RATE)
        frequency = 440 * 2 ** ((key - 69) / 12)
        count = min(length - at, int((sixteenths / 4 * 60 / song.bpm + release) * SAMPLE_RATE))
        if count < 200:
            continue
        t = np.arange(count, dtype=np.float32) / SAMPLE_RATE
        envelope = np.exp(-t / decay) * np.minimum(1, t / 0.004) * np.minimum(1, (t[-1] - t) / release)
        if wave == "sine":
            glide = frequency * (1 + rng.choice([0, 1.5]) * np.exp(-t / 0.02))
            note = np.sin(2 * np.pi * np.cumsum(glide) / SAMPLE_RATE)
        elif wave == "fm":
            note = np.sin(2 * np.pi * frequency * t + brightness / 5 * envelope * np.sin(2 * np.pi * frequency * t))
        else:
            note = np.zeros_like(t)
            for h in range(1, min(60, int(16000 / frequency)), 2 if wave == "square" else 1):
                cutoff = brightness * (0.3 + envelope)
                note += np.sin(2 * np.pi * h * frequency * t) / h / (1 + (h / cutoff) ** 4)
        out[at : at + count] += note * envelope * velocity / 110
    out = np.tanh(drive * out / max(np.abs(out).max(), 1e-6))
    return np.stack((out, out), -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--soundfonts", required=True, help="comma-separated")
    parser.add_argument("--samples", type=Path, required=True, help="folder of sonic-pi's samples")
    args = parser.parse_args()
    soundfonts = args.soundfonts.split(",")
    samples = Samples(args.samples)

    for path in samples.loops:
        target = args.out / f"synth-{path.stem.replace('_', '-')}" / "drums.npy"
        if not target.exists():
            loop = decode(path)
            store(np.tile(loop, (int(np.ceil(10 * SAMPLE_RATE / len(loop))), 1)), target)
    for i in range(args.songs):
        folder = args.out / f"synth-{i:03}"
        if folder.exists():
            continue
        song = Song(i, args.seconds)
        rng = song.rng
        electronic = song.genre_name in ("house", "hiphop", "trap", "breaks")
        soundfont = soundfonts[rng.integers(len(soundfonts))]
        if rng.random() < (0.6 if electronic else 0.15):
            drums = samples.drums(song)
        else:
            drums = render(drum_score(song), soundfont, rng)
        if rng.random() < (0.7 if electronic else 0.15):
            bass = electric_bass(song)
        else:
            bass = render(bass_score(song), soundfont, rng)
        other = render(other_score(song), soundfonts[rng.integers(len(soundfonts))], rng)
        length = min(len(drums), len(bass), len(other))
        temporary = unfinished(folder)
        for stem, audio in dict(drums=drums, bass=bass, other=other).items():
            store(finish(audio[:length].astype(np.float32)), temporary / f"{stem}.npy")
        temporary.rename(folder)
        print(f"{folder.name}: {song.genre_name}, {song.bpm:.0f} bpm, {length / SAMPLE_RATE:.0f} s", flush=True)


if __name__ == "__main__":
    main()
