"""Songs of a band: recorded drums hit by hit, basses, amplified guitars, and the instruments of a soundfont.

    python band.py --out POOL --songs 100 --seconds 40 --soundfonts A.sf2,B.sf3 [--rumpf KIT] [--muldjord KIT] [--basses A,B] [--guitars C] [--jobs 2]

As `electronic.py`, whose mixing and mastering it shares. Kits: the folder of Debian's rumpf_kit_z01_h2 (CC-BY 3.0), and the samples of
DrumGizmo's MuldjordKit in SFZ (CC-BY 4.0). Basses and guitars: folders of samples that `recorded.py` can read. Without them the songs
are those that it made before it had them.
"""

import argparse
import multiprocessing
from pathlib import Path

import numpy as np

import acoustic
import bus
from drum_machine import log_uniform
from electronic import Production, loudness, publish
from guitar import Amplifier, Strings, sampled, strokes
from recorded import Recorded, instruments
from styles import BAND
from synthesize import bass_score, other_score, render

HEAVY = {"metal", "punk", "hard-rock", "rock", "rock-push", "halftime"}
# Manner, and the gain of the amplifier.
CLEAN, CRUNCH, HIGH = (0.5, 3), (4, 20), (25, 200)
HEAVY_GUITARS = (("power", HIGH), ("power", HIGH), ("power", CRUNCH), ("riff", HIGH), ("lead", HIGH), ("strum", CRUNCH))
LIGHT_GUITARS = (("strum", CLEAN), ("strum", CRUNCH), ("offbeat", CLEAN), ("picking", CLEAN), ("riff", CLEAN), ("lead", CRUNCH), ("lead", CLEAN), ("power", CRUNCH))


class Band(Production):
    """One song; soundfonts and shelves of drums are shared by all."""

    KIND, SEED, STYLES = "band", 2024, BAND

    def __init__(self, seed, seconds, soundfonts, shelves, basses=(), guitars=()):
        super().__init__(seed, seconds)
        self.soundfonts, self.shelves, self.basses, self.guitars = soundfonts, shelves, basses, guitars
        # Ghost notes of the snare, where the style leaves room.
        marks, chance = self.genre["snare"], self.rng.choice([0, 0, 0.06, 0.15])
        self.genre["snare"] = "".join("o" if m == "." and self.rng.random() < chance else m for m in marks)
        for name in ("guitar-0", "guitar-1", "guitar-2"):
            self.arrangement[name] = self.rng.random(self.bars // 4 + 1) < 0.75

    def drums(self):
        return acoustic.drummer(self, self.shelves)

    def rendered(self, score):
        """A score by one of the soundfonts, float32 [s, t] of the song's length."""
        audio = render(score, self.soundfonts[self.rng.integers(len(self.soundfonts))], self.rng)[: self.length].T
        return np.pad(audio, ((0, 0), (0, self.length - audio.shape[1]))).astype(np.float32) / 32768

    def strings(self, recorded, share, *bright):
        """One of the recorded instruments, in that share of cases, or plucked strings of our own."""
        rng = self.rng
        if recorded and rng.random() < share:
            return Recorded(rng, recorded[rng.integers(len(recorded))])
        return Strings(rng, *bright)

    def bass(self):
        rng, draw = self.rng, self.rng.random()
        if draw < 0.15:
            return super().bass()
        if draw < (0.25 if self.basses else 0.6):
            out = self.rendered(bass_score(self))
        else:
            sixteenth = 15 / self.bpm
            notes = [
                (self.beat(bar, step), [max(28, key)], length * sixteenth, velocity / 115, rng.random() < 0.05)
                for bar, step, key, length, velocity in self.bassline()
                if self.plays("bass", bar)
            ]
            out = np.tile(self.strings(self.basses, 0.85, (1.5, 20)).play(self, notes), (2, 1))
        if rng.random() < 0.5:
            dry, wet = out.mean(0), Amplifier(rng, (1, 12)).sound(out.mean(0))
            share = rng.uniform(0.2, 1)
            out = np.tile((1 - share) * dry / (np.abs(dry).max() + 1e-6) + share * wet, (2, 1)).astype(np.float32)
        if rng.random() < 0.6:
            out = out * bus.compression(out / (np.abs(out).max() + 1e-6), rng.uniform(-22, -8), rng.uniform(2, 6))
        return bus.tilt(rng, out, 0.7)

    def guitar(self, name):
        """One part, played once, or twice for the left and the right."""
        rng = self.rng
        guitars = HEAVY_GUITARS if self.genre_name in HEAVY else LIGHT_GUITARS
        manner, dirt = guitars[rng.integers(len(guitars))]
        played = list(strokes(self, rng, manner, name))
        if not played:
            return np.zeros((2, self.length), np.float32)
        twice = manner in ("power", "strum", "riff") and rng.random() < 0.6
        program = int(rng.choice([24, 25, 26, 27, 27]))
        soundfont = self.soundfonts[rng.integers(len(self.soundfonts))] if rng.random() < 0.4 else None
        amplifier, out = Amplifier(rng, dirt), np.zeros((2, self.length), np.float32)
        for side in (-1, 1) if twice else (rng.uniform(-0.7, 0.7),):
            late = [(beat + abs(rng.normal(0, 0.008)) * self.bpm / 60, *stroke) for beat, *stroke in played]
            dry = sampled(rng, self, late, soundfont, program) if soundfont else self.strings(self.guitars, 0.5).play(self, late)
            self.add(out, amplifier.sound(dry), 0, side * (rng.uniform(0.6, 1) if twice else 1))
        if rng.random() < 0.3:
            out = bus.echo(rng, out, float(rng.choice([2, 3, 4])) * 15 / self.bpm, rng.uniform(0.1, 0.35))
        if rng.random() < 0.6:
            out = bus.reverb(rng, out, log_uniform(rng, 0.2, 2), log_uniform(rng, 0.05, 0.4))
        return bus.tilt(rng, out)

    def other(self):
        rng = self.rng
        parts = [self.guitar(f"guitar-{i}") for i in range(int(rng.choice([0, 1, 1, 2, 2, 3])))]
        if not parts or rng.random() < 0.6:
            parts.append(bus.tilt(rng, self.rendered(other_score(self))))
        if rng.random() < 0.2:
            parts.append(self.part(str(rng.choice(["comp", "arp", "lead", "pad"]))))
        return sum(audio / (loudness(audio) + 1e-6) * np.float32(10 ** (rng.normal(0, 3) / 20)) for audio in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--soundfonts", required=True, help="comma-separated")
    parser.add_argument("--rumpf", type=Path)
    parser.add_argument("--muldjord", type=Path)
    parser.add_argument("--basses", default="", help="folders, comma-separated")
    parser.add_argument("--guitars", default="", help="folders, comma-separated")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    soundfonts = args.soundfonts.split(",")
    numbers = [i for i in range(args.first, args.first + args.songs) if not (args.out / f"band-{i:03}").exists()]
    shelves = acoustic.shelves(soundfonts, args.rumpf, args.muldjord)
    basses, guitars = (instruments([Path(folder) for folder in text.split(",") if folder]) for text in (args.basses, args.guitars))

    def work(job):
        for i in numbers[job :: args.jobs]:
            publish(Band(i, args.seconds, soundfonts, shelves, basses, guitars), i, args.out)

    workers = [multiprocessing.get_context("fork").Process(target=work, args=(job,)) for job in range(args.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed := sum(worker.exitcode != 0 for worker in workers):
        raise SystemExit(f"{failed} of {args.jobs} jobs failed: see above; the same command makes what is missing")


if __name__ == "__main__":
    main()
