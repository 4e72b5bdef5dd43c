"""Electric guitars and basses: what a hand plays, plucked strings or a soundfont's clean guitar, an amplifier, a cabinet.

A stroke is (beat, keys, seconds, velocity 0 to 1, muted); dry sound is mono float32 [t].
"""

import numpy as np
import scipy.signal

from drum_machine import log_uniform
from midi import Score
from prepare import SAMPLE_RATE
from synthesize import melody, render
from synthesizer import pluck

LOWEST, HIGHEST = 38, 84


def folded(key):
    """On the neck."""
    while key < LOWEST:
        key += 12
    while key > HIGHEST:
        key -= 12
    return key


def strokes(song, rng, manner, name):
    """What one guitar plays over a whole song, in a manner: power, strum, offbeat, picking, riff or lead."""
    sixteenth = 15 / song.bpm
    accents = [s for s in range(16) if rng.random() < (0.8 if s % 8 == 0 else 0.35 if s % 2 == 0 else 0.12)] or [0]
    riff = {s: int(rng.choice([0, 0, 0, 1, 2, 4, 6, 7])) for s in range(16) if rng.random() < 0.6} or {0: 0}
    every, degree = int(rng.choice([1, 2, 2, 2])), int(rng.integers(7))
    mute_share = rng.uniform(0, 1)
    for bar in range(song.bars):
        if not song.plays(name, bar):
            continue
        root = song.degree(bar)
        low = folded(song.key(root, 2))
        chord = [folded(song.key(root + d, 3 if d > 4 else 2)) for d in (0, 4, 7, 9, 11)][: int(rng.integers(4, 6))]
        if manner == "power":
            for step in range(0, 16, every):
                accent = step in accents
                muted = not accent and rng.random() < mute_share
                if accent or rng.random() < 0.9:
                    keys = [low, low + 7] if muted else [low, low + 7, low + 12]
                    yield song.beat(bar, step), keys, sixteenth * (every * 0.9 if not accent else every * 1.5), 1.0 if accent else 0.75, muted
        elif manner == "strum":
            for step in range(16):
                if step in accents or step % 4 == 0 and rng.random() < 0.5:
                    yield song.beat(bar, step), chord if step % 4 else chord[::-1], sixteenth * rng.choice([1, 2, 4]), rng.uniform(0.6, 1), rng.random() < 0.12
        elif manner == "offbeat":
            for step in (2, 6, 10, 14) if every == 1 else (4, 12):
                yield song.beat(bar, step), chord[1:], sixteenth * rng.uniform(0.6, 1.4), rng.uniform(0.7, 1), rng.random() < 0.1
        elif manner == "picking":
            for i, step in enumerate(range(0, 16, every)):
                yield song.beat(bar, step), [chord[(i * 3 + i // 4) % len(chord)]], sixteenth * 6, rng.uniform(0.5, 0.9), False
        elif manner == "riff":
            for step, interval in riff.items():
                key = folded(song.key(root + interval, 2))
                yield song.beat(bar, step), [key], sixteenth * rng.choice([1, 1, 2]), rng.uniform(0.7, 1), rng.random() < mute_share * 0.5
        else:
            for step, length, degree, sounds in melody(rng, degree, [1, 2, 2, 4, 4, 8]):
                if sounds:
                    yield song.beat(bar, step), [folded(song.key(degree, 4))], length * sixteenth, rng.uniform(0.7, 1), False


class Strings:
    """Plucked strings of one instrument; notes are kept, four of each."""

    def __init__(self, rng, bright=(4, 40)):
        self.rng, self.cache = rng, {}
        self.brightness, self.decay = log_uniform(rng, *bright), log_uniform(rng, 0.5, 4)
        self.position, self.muting = rng.uniform(0.08, 0.3), log_uniform(rng, 0.04, 0.15)

    def note(self, key, muted, velocity):
        """As long as it rings, at a peak of 1; the loudness does not change this string's sound."""
        name = key, muted, int(self.rng.integers(4))
        if name not in self.cache:
            frequency = 440 * 2 ** ((key - 69 + self.rng.normal(0, 0.03)) / 12)
            count = int((0.4 if muted else 4) * SAMPLE_RATE)
            note = pluck(self.rng, frequency / SAMPLE_RATE, count, self.brightness * (0.3 if muted else 1), self.decay)
            # Where it is plucked, some harmonics have a node.
            comb = int(self.position * SAMPLE_RATE / frequency)
            note[comb:] -= 0.8 * note[: len(note) - comb]
            if muted:
                note *= np.exp(-np.arange(count) / (self.muting * SAMPLE_RATE))
            self.cache[name] = (note / max(np.abs(note).max(), 1e-6)).astype(np.float32)
        return self.cache[name]

    def play(self, song, strokes):
        """Mono [t] of a song's length; a new stroke ends what rings."""
        out = np.zeros(song.length, np.float32)
        release = int(0.03 * SAMPLE_RATE)
        for beat, keys, seconds, velocity, muted in strokes:
            spread = self.rng.uniform(0.002, 0.018)
            for i, key in enumerate(keys):
                start = song.at(beat) + int(i * spread * SAMPLE_RATE)
                count = min(int(seconds * SAMPLE_RATE) + release, song.length - start)
                note = self.note(key, muted, velocity)[: max(count, 0)].copy()
                fade = min(release, len(note))
                note[len(note) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
                out[start : start + len(note)] += velocity * note
        return out


def sampled(rng, song, strokes, soundfont, program):
    """The same played by a soundfont's guitar; muted strokes by its muted one."""
    score = Score(song.bpm)
    score.program(0, program)
    score.program(1, 28)
    for beat, keys, seconds, velocity, muted in strokes:
        for i, key in enumerate(keys):
            score.note(int(muted), key, int(velocity * 115), beat + 0.01 * i, seconds * song.bpm / 60)
    audio = render(score, soundfont, rng, dry=True)[: song.length].mean(1) / 32768
    return np.pad(audio, (0, song.length - len(audio))).astype(np.float32)


def bell(audio, hertz, gain_db, width):
    """One band louder or softer."""
    b, a = scipy.signal.iirpeak(hertz, width, fs=SAMPLE_RATE)
    return audio + (10 ** (gain_db / 20) - 1) * scipy.signal.lfilter(b, a, audio)


class Amplifier:
    """Clean to high gain: a high-pass, a curve with a bias at twice the rate, a cabinet."""

    def __init__(self, rng, dirt):
        """dirt: low and high of the gain over the signal's level"""
        self.gain, self.bias = log_uniform(rng, *dirt), rng.uniform(0, 0.3)
        self.tight = log_uniform(rng, 40, 300)
        self.cabinet = scipy.signal.butter(4, rng.uniform(3200, 6500), fs=SAMPLE_RATE, output="sos")
        self.bumps = [(rng.uniform(90, 160), rng.uniform(0, 5), 1.5), (rng.uniform(350, 800), rng.uniform(-8, 2), 1), (rng.uniform(1800, 3200), rng.uniform(0, 7), 1.5)]

    def sound(self, dry):
        """[t] -> float32 [t] at a peak of 1"""
        b, a = scipy.signal.butter(1, self.tight, "high", fs=SAMPLE_RATE)
        audio = scipy.signal.lfilter(b, a, dry)
        sounding = np.abs(audio) > 1e-3
        level = np.sqrt(np.mean(audio[sounding] ** 2)) if sounding.any() else 1.0
        audio = scipy.signal.resample_poly(audio / level * 0.2, 2, 1)
        audio = np.tanh(self.gain * audio + self.bias) - np.tanh(self.bias)
        audio = scipy.signal.sosfilt(self.cabinet, scipy.signal.resample_poly(audio, 1, 2))
        for bump in self.bumps:
            audio = bell(audio, *bump)
        b, a = scipy.signal.butter(1, 70, "high", fs=SAMPLE_RATE)
        audio = scipy.signal.lfilter(b, a, audio)
        return (audio / max(np.abs(audio).max(), 1e-6)).astype(np.float32)
