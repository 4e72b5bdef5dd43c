"""Electronic songs of synthesizers and a drum machine alone, as stems drums, bass and other, mixed and mastered.

    python electronic.py --out POOL --songs 120 --seconds 45

No recording is used. Style, kits, patches, reverbs, ducking and mastering are random for every song. Song `i`
depends on `i` alone; existing songs are kept. The mixture's mastering gain is applied to every stem, so that the stems
still sum to the mixture.
"""

import argparse
from pathlib import Path

import numpy as np

import bus
import drum_machine
from drum_machine import log_uniform
from prepare import SAMPLE_RATE, store, unfinished
from styles import ELECTRONIC
from synthesize import CHORDS, MAJOR, MINOR, Song, melody
from synthesizer import Patch


class Production(Song):
    """One song; what to play comes from `Song`, how it sounds from here."""

    KIND, SEED, STYLES = "electro", 1313, ELECTRONIC

    def __init__(self, seed, seconds):
        self.rng = rng = np.random.default_rng([self.SEED, seed])
        self.genre_name = str(rng.choice(list(self.STYLES)))
        self.genre = dict(self.STYLES[self.genre_name])
        self.bpm = rng.uniform(*self.genre["bpm"])
        self.bars = int(np.ceil(seconds * self.bpm / 240))
        self.scale = MAJOR if rng.random() < 0.35 else MINOR
        self.tonic = int(rng.integers(12))
        self.sections = [CHORDS[rng.integers(len(CHORDS))] for _ in range(2)]
        for part, chance in (("kick", 0.06), ("hat", 0.15)):
            marks = self.genre[part]
            if rng.random() < 0.5:
                flip = rng.random(16) < chance
                self.genre[part] = "".join(("x" if m == "." else ".") if f else m for m, f in zip(marks, flip))
        self.length = int((self.bars * 4 + 4) * 60 / self.bpm * SAMPLE_RATE)
        self.kicks = []
        # Which parts play in a block of four bars: builds and breaks.
        self.arrangement = {p: rng.random(self.bars // 4 + 1) < share for p, share in dict(drums=0.85, bass=0.85, comp=0.7, arp=0.65, lead=0.6, pad=0.75).items()}

    def plays(self, part, bar):
        return self.arrangement[part][bar // 4]

    def at(self, beat):
        return int(beat * 60 / self.bpm * SAMPLE_RATE)

    def add(self, out, audio, beat, pan=0.0, gain=1.0):
        start = self.at(beat)
        part = out[:, start : start + audio.shape[-1]]
        part += gain * audio[..., : part.shape[-1]] * np.array([[1 - max(0, pan)], [1 + min(0, pan)]], np.float32)

    def drums(self):
        rng = self.rng
        kit = drum_machine.kit(rng)
        out = np.zeros((2, self.length), np.float32)
        space = np.zeros_like(out)
        levels = dict(kick=rng.uniform(0.8, 1.2), snare=rng.uniform(0.5, 1), clap=rng.uniform(0.3, 0.7), crash=rng.uniform(0.15, 0.4))
        metal = rng.uniform(0.12, 0.4)
        pan = {v: 0.0 if v in ("kick", "snare") else rng.uniform(-0.5, 0.5) for v in kit}
        clapped = rng.random() < 0.4
        for bar, step, voice, velocity in self.hits():
            if not self.plays("drums", bar) and (voice != "hat" or bar % 8 > 3):
                continue
            beat = self.beat(bar, step)
            gain = (velocity / 110) ** 1.5 * levels.get(voice, metal if voice in ("hat", "open", "ride") else 0.5)
            self.add(space if voice in ("snare", "tom_hi", "tom_mid", "crash") else out, kit[voice], beat, pan[voice], gain)
            if voice == "kick":
                self.kicks.append(self.at(beat))
            if voice == "snare" and clapped and velocity > 80:
                self.add(space, kit["clap"], beat, pan["clap"], levels["clap"])
            if voice == "hat" and self.genre_name in ("trap", "hiphop", "dubstep") and rng.random() < 0.12:
                count = int(rng.choice([2, 3, 4]))
                for i in range(1, count):
                    self.add(out, kit["hat"], beat + i * 0.25 / count, pan["hat"], gain * 0.8)
        for voice in ("percussion", "percussion_2"):
            if rng.random() < 0.6:
                steps = np.flatnonzero(rng.random(16) < rng.uniform(0.1, 0.4))
                for bar in range(self.bars):
                    for step in steps:
                        if rng.random() < 0.9 and self.plays("drums", bar):
                            self.add(space, kit[voice], self.beat(bar, int(step)), pan[voice], rng.uniform(0.1, 0.4))
        if rng.random() < 0.7:
            space = bus.reverb(rng, space, log_uniform(rng, 0.15, 2.0), log_uniform(rng, 0.05, 0.6))
        out += space
        if rng.random() < 0.5:
            out = bus.saturate(rng, out)
        if rng.random() < 0.5:
            out *= bus.compression(out, rng.uniform(-18, -6), rng.uniform(2, 8), rng.uniform(0.001, 0.02))
        return bus.tilt(rng, out)

    def bass(self):
        rng = self.rng
        patch, out = Patch(rng, "bass"), np.zeros((2, self.length), np.float32)
        if self.genre_name in ("trap", "hiphop", "dubstep", "halftime") and rng.random() < 0.5:
            patch.kind, patch.decay, patch.sustain = "sine", log_uniform(rng, 0.4, 2), 0.3
        for bar, step, key, sixteenths, velocity in self.bassline():
            if self.plays("bass", bar):
                self.add(out, patch.note(key, sixteenths / 4 * 60 / self.bpm, velocity / 110), self.beat(bar, step))
        if rng.random() < 0.4:
            out = bus.saturate(rng, out)
        return bus.tilt(rng, out, 0.7)

    def part(self, name):
        """One part of `other`: chords, an arpeggio, a lead or a pad."""
        rng = self.rng
        patch = Patch(rng, dict(comp="pluck", arp="pluck", lead="lead", pad="pad")[name])
        out = np.zeros((2, self.length), np.float32)
        octave = int(rng.choice([3, 4, 4, 5] if name in ("arp", "lead") else [3, 3, 4]))
        guitar = name == "comp" and rng.random() < 0.35
        if guitar:
            patch.kind, patch.decay, octave = "string", log_uniform(rng, 0.8, 4), int(rng.choice([1, 2, 2]))
        rhythm = [s for s in range(16) if rng.random() < (0.7 if s % 4 == 0 else 0.4 if s % 2 == 0 else 0.15)] or [0]
        steps, order = int(rng.choice([1, 2, 2])), rng.permutation(8)
        pan = rng.uniform(-0.5, 0.5) if name != "pad" else 0.0
        degree = int(rng.integers(0, 7))
        sixteenth = 15 / self.bpm
        for bar in range(self.bars):
            if not self.plays(name, bar):
                continue
            root = self.degree(bar)
            chord = [root, root + 2, root + 4, root + 7] if rng.random() < 0.9 else [root, root + 3, root + 4, root + 6]
            if name == "pad":
                for d in chord[: 3 + bar // 4 % 2]:
                    self.add(out, patch.note(self.key(d, octave), 15.5 * sixteenth, 0.5), bar * 4)
            elif name == "comp":
                notes = [root, root + 4, root + 7] if guitar else chord[:3]
                for i, step in enumerate(rhythm):
                    until = rhythm[i + 1] if i + 1 < len(rhythm) else 16
                    for d in notes:
                        self.add(out, patch.note(self.key(d, octave), (until - step) * sixteenth * 0.85, 0.6), self.beat(bar, step), pan)
            elif name == "arp":
                for step in range(0, 16, steps):
                    d = chord[order[step // steps % 8] % 4] + 7 * (order[step // steps % 8] // 4)
                    self.add(out, patch.note(self.key(d, octave), steps * sixteenth * 0.9, rng.uniform(0.5, 1)), self.beat(bar, step), pan)
            else:
                for step, length, degree, sounds in melody(rng, degree, [1, 2, 2, 4, 4, 8]):
                    if sounds:
                        self.add(out, patch.note(self.key(degree, octave), length * sixteenth * 0.9, rng.uniform(0.7, 1)), self.beat(bar, step), pan)
        if guitar or rng.random() < 0.15:
            out = bus.saturate(rng, out, 60 if guitar else 8)
        if rng.random() < 0.4:
            out = bus.echo(rng, out, float(rng.choice([2, 3, 4, 6])) * sixteenth, rng.uniform(0.15, 0.5))
        if rng.random() < 0.6:
            out = bus.reverb(rng, out, log_uniform(rng, 0.3, 2.8), log_uniform(rng, 0.1, 0.8))
        return bus.tilt(rng, out)

    def other(self):
        rng = self.rng
        names = rng.choice(["comp", "arp", "lead", "pad"], int(rng.integers(1, 5)), replace=False)
        out = np.zeros((2, self.length), np.float32)
        for name in names:
            audio = self.part(str(name))
            out += audio / (loudness(audio) + 1e-6) * 10 ** (rng.normal(0, 3) / 20)
        return out


def loudness(audio):
    """Level while it sounds."""
    squares = (audio**2).mean(0)
    squares = squares[: len(squares) // 4410 * 4410].reshape(-1, 4410).mean(1)
    sounding = squares > 0.01 * squares.max() + 1e-9
    return float(np.sqrt(squares[sounding].mean())) if sounding.any() else 0.0


def produce(song):
    """Stems as {name: float32 [s, t]}, mixed and mastered."""
    rng = song.rng
    stems = dict(drums=song.drums(), bass=song.bass(), other=song.other())
    levels = dict(drums=rng.normal(0, 2), bass=rng.normal(-2, 3), other=rng.normal(-2, 3))
    for name, audio in stems.items():
        audio *= np.float32(10 ** (levels[name] / 20) / (loudness(audio) + 1e-6))
    if song.kicks and rng.random() < 0.55:
        depth, seconds = rng.uniform(0.3, 1), rng.uniform(0.4, 1) * 60 / song.bpm
        for name in ("bass", "other"):
            stems[name] *= bus.duck(song.kicks, song.length, depth * rng.uniform(0.6, 1), seconds)
    mixture = sum(stems.values())
    gain = 1 / np.quantile(np.abs(mixture[:, ::7]), 0.999)
    if rng.random() < 0.7:
        gain = gain * bus.compression(mixture * gain, rng.uniform(-16, -4), rng.uniform(1.5, 5), rng.uniform(0.002, 0.03))
    gain = gain * 10 ** (rng.uniform(-1, 7) / 20)
    gain = gain * bus.limit(mixture * gain)
    return {name: audio * gain for name, audio in stems.items()}


def publish(song, number, out):
    """Write a song's stems to `<out>/<kind>-<number>`, either all or none."""
    folder = out / f"{song.KIND}-{number:03}"
    stems = produce(song)
    temporary = unfinished(folder)
    scale = 32000 / max(1.0, max(np.abs(a).max() for a in stems.values()))
    for name, audio in stems.items():
        store(np.ascontiguousarray(np.round(audio.T * scale).astype(np.int16)), temporary / f"{name}.npy")
    temporary.rename(folder)
    print(f"{folder.name}: {song.genre_name}, {song.bpm:.0f} bpm, {song.length / SAMPLE_RATE:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=120)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=45)
    args = parser.parse_args()
    for i in range(args.first, args.first + args.songs):
        if not (args.out / f"electro-{i:03}").exists():
            publish(Production(i, args.seconds), i, args.out)


if __name__ == "__main__":
    main()
