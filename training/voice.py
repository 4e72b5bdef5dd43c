"""One voice into many: WORLD's pitch, envelope and breath taken apart, changed and put together. Mono, float64 [t]."""

import numpy as np
import pyworld
import scipy.ndimage
import scipy.signal

from prepare import SAMPLE_RATE

FRAME = 0.005
BINS = 1025


class Voice:
    """pitch [f] in hertz, 0 where unvoiced; envelope and breath [f, BINS] up to 22.05 kHz."""

    def __init__(self, audio, rate):
        audio = np.ascontiguousarray(audio, np.float64)
        pitch, times = pyworld.dio(audio, rate, f0_floor=65, f0_ceil=1100, frame_period=1000 * FRAME)
        self.pitch = pyworld.stonemask(audio, pitch, times, rate)
        envelope = pyworld.cheaptrick(audio, self.pitch, times, rate)
        breath = pyworld.d4c(audio, self.pitch, times, rate)
        self.envelope, self.breath = widen(envelope, rate), widen(breath, rate, 1.0)

    def stretched(self, position):
        """Frames at fractional positions [f]."""
        out = object.__new__(Voice)
        low = np.clip(position.astype(int), 0, len(self.pitch) - 2)
        part = np.clip(position - low, 0, 1)[:, None]
        both = (self.pitch[low] > 0) & (self.pitch[low + 1] > 0)
        mixed = self.pitch[low] * (1 - part[:, 0]) + self.pitch[low + 1] * part[:, 0]
        out.pitch = np.where(both, mixed, self.pitch[low])
        out.envelope = self.envelope[low] * (1 - part) + self.envelope[low + 1] * part
        out.breath = self.breath[low] * (1 - part) + self.breath[low + 1] * part
        return out

    def sound(self, pitch_ratio=1.0, formant_ratio=1.0, breathiness=0.0, air=0.0):
        """Audio; `formant_ratio` below 1 is a longer throat, `breathiness` 0 to 1, `air` decibels in the highs."""
        source = np.arange(BINS) / formant_ratio
        low = np.minimum(source.astype(int), BINS - 2)
        part = np.clip(source - low, 0, 1)
        envelope = self.envelope[:, low] * (1 - part) + self.envelope[:, low + 1] * part
        breath = self.breath[:, low] * (1 - part) + self.breath[:, low + 1] * part
        breath = np.clip(breath + breathiness * (1 - breath) * np.linspace(0.2, 1, BINS), 0.001, 0.999)
        octaves = np.log2(np.maximum(np.linspace(0, SAMPLE_RATE / 2, BINS), 1) / 2000)
        envelope = envelope * 10 ** (air / 10 * np.clip(octaves / 2, 0, 1)) + 1e-12
        frames = map(np.ascontiguousarray, (envelope, breath))
        audio = pyworld.synthesize(self.pitch * pitch_ratio, *frames, SAMPLE_RATE, 1000 * FRAME)
        return audio / max(np.abs(audio).max(), 1e-6)


def widen(frames, rate, above=None):
    """[f, bins of rate] -> [f, BINS of 44.1 kHz]; above the source's range falling, or the constant `above`."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, BINS) * (frames.shape[1] - 1) / (rate / 2)
    low = np.minimum(hertz.astype(int), frames.shape[1] - 2)
    part = np.clip(hertz - low, 0, 1)
    out = frames[:, low] * (1 - part) + frames[:, low + 1] * part
    edge = int(0.93 * rate / SAMPLE_RATE * (BINS - 1))
    if edge < BINS - 1:
        if above is None:
            fall = 0.5 ** (np.arange(BINS - edge) / (BINS / 11))
            out[:, edge:] = out[:, edge - 40 : edge].mean(1, keepdims=True) * fall
        else:
            out[:, edge:] = above
    return out


def sung(rng, voice, keys, tempo):
    """A speaking voice that sings: stretched, each stretch of voiced frames on notes of `keys` (MIDI), which never ends."""
    factor = rng.uniform(1.4, 2.8)
    # Voiced frames are held longer than consonants.
    voiced = scipy.ndimage.median_filter((voice.pitch > 0).astype(float), 5)
    pace = np.where(voiced > 0, 1 / factor, 1 / rng.uniform(0.9, 1.3))
    arrival = np.concatenate(([0], np.cumsum(1 / pace)))
    count = int(arrival[-1])
    voice = voice.stretched(np.interp(np.arange(count), arrival, np.arange(len(arrival))))
    goal = np.zeros(count)
    sixteenth = 15 / tempo / FRAME
    at = 0
    on = voice.pitch > 0
    while at < count:
        length = int(sixteenth * rng.choice([2, 2, 4, 4, 8]))
        # A note ends where the voice does.
        quiet = np.flatnonzero(~on[at + 20 : at + length])
        if len(quiet):
            length = 20 + int(quiet[0]) + 1
        goal[at : at + length] = next(keys)
        at += length
    goal = scipy.ndimage.gaussian_filter1d(goal, rng.uniform(3, 9))
    t = np.arange(count) * FRAME
    depth = rng.uniform(0, 0.6) * scipy.ndimage.gaussian_filter1d((rng.random(count) > 0.5).astype(float), 60)
    goal += depth * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * t)
    goal += 0.15 * scipy.ndimage.gaussian_filter1d(rng.standard_normal(count), 25) * 5
    voice.pitch = np.where(on, 440 * 2 ** ((goal - 69) / 12), 0.0)
    return voice
