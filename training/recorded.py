"""String instruments from recorded notes: folders of samples named after their key, such as `eb3_ff_rr1.wav`, played like `guitar.Strings`.

An instrument is {key: [notes from soft to loud]}, a note mono float32 [t] from its stroke on.
"""

import re

import numpy as np

from acoustic import trimmed, tuned
from guitar import Strings
from prepare import SAMPLE_RATE, decode

PITCHES = dict(c=0, db=1, d=2, eb=3, e=4, f=5, gb=6, g=7, ab=8, a=9, bb=10, b=11)
NAME = re.compile(r"(?:^|_)([a-g]b?)(\d)(?=_|$)")
# Fewer are effects.
ENOUGH = 30


def fundamental(audio):
    """Key of a note by its autocorrelation; None where it has none."""
    part = audio[2000 : 2000 + 32768]
    power = np.abs(np.fft.rfft(part - part.mean(), 1 << 17)) ** 2
    likeness = np.fft.irfft(power)[: SAMPLE_RATE // 25]
    first = SAMPLE_RATE // 700
    peaks = np.flatnonzero((likeness[1:-1] > likeness[:-2]) & (likeness[1:-1] > likeness[2:])) + 1
    peaks = peaks[(peaks >= first) & (likeness[peaks] > 0)]
    if not len(peaks):
        return None
    best = peaks[likeness[peaks] >= 0.85 * likeness[peaks].max()][0]
    return 69 + 12 * np.log2(SAMPLE_RATE / best / 440)


def instrument(folder):
    """The folder's notes; which octave its names mean is heard."""
    named = []
    for path in sorted(folder.glob("*.wav")):
        found = NAME.search(path.stem.lower())
        if found:
            named.append((12 * int(found[2]) + 12 + PITCHES[found[1]], trimmed(decode(path))))
    octaves = [heard - key for key, audio in named if len(audio) > 36000 and (heard := fundamental(audio)) is not None]
    octave = 12 * round(float(np.median(octaves)) / 12) if octaves else 0
    notes = {}
    for key, audio in named:
        if len(audio) > SAMPLE_RATE // 10:
            notes.setdefault(key + octave, []).append(audio)
    return {key: sorted(layers, key=lambda audio: np.abs(audio).max()) for key, layers in notes.items()}


def instruments(folders):
    """Every one in the folders and below."""
    below = sorted({path.parent for folder in folders for path in folder.rglob("*.wav")})
    found = [instrument(folder) for folder in below if len(list(folder.glob("*.wav"))) >= ENOUGH]
    return [notes for notes in found if notes]


class Recorded(Strings):
    """One recorded instrument."""

    def __init__(self, rng, notes):
        super().__init__(rng)
        self.notes, self.keys = notes, np.array(sorted(notes))

    def note(self, key, muted, velocity):
        name = key, muted, int(velocity * 4), int(self.rng.integers(2))
        if name not in self.cache:
            # The nearest of the recorded keys, now and then its neighbour: two strings have the same note.
            nearest = self.keys[np.argsort(np.abs(self.keys - key))[int(self.rng.random() < 0.2) % len(self.keys)]]
            layers = self.notes[nearest]
            audio = layers[min(len(layers) - 1, int(velocity * len(layers)))]
            audio = tuned(audio, 2 ** ((key - nearest + self.rng.normal(0, 0.03)) / 12))
            if muted:
                audio = audio * np.exp(-np.arange(len(audio)) / (self.muting * SAMPLE_RATE))
            self.cache[name] = (audio / max(np.abs(audio).max(), 1e-6)).astype(np.float32)
        return self.cache[name]
