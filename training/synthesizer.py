"""A synthesizer whose every parameter is drawn: oscillators, a filter with an envelope, plucked strings, FM."""

import numpy as np
import scipy.signal

from drum_machine import log_uniform
from prepare import SAMPLE_RATE

BLOCK = 256


def saw(phase, step):
    """Band-limited sawtooth of a phase in turns; `step`: turns a sample."""
    x = phase % 1.0
    out = 2 * x - 1
    low, high = x < step, x > 1 - step
    a, b = x[low] / step, (x[high] - 1) / step
    out[low] -= 2 * a - a * a - 1
    out[high] -= b * b + 2 * b + 1
    return out


def sweep(audio, cutoff, resonance, high=False):
    """Second-order filter whose cut-off in hertz, [blocks], moves from block to block."""
    out = np.empty_like(audio)
    state = np.zeros(2)
    for i, start in enumerate(range(0, len(audio), BLOCK)):
        w = 2 * np.pi * min(max(cutoff[min(i, len(cutoff) - 1)], 25), 0.45 * SAMPLE_RATE) / SAMPLE_RATE
        alpha, cos = np.sin(w) / (2 * resonance), np.cos(w)
        edge = (1 + cos) / 2 if high else (1 - cos) / 2
        b = np.array([edge, -2 * edge if high else 2 * edge, edge]) / (1 + alpha)
        a = np.array([1, -2 * cos / (1 + alpha), (1 - alpha) / (1 + alpha)])
        out[start : start + BLOCK], state = scipy.signal.lfilter(b, a, audio[start : start + BLOCK], zi=state)
    return out


class Patch:
    """One sound. `role`: bass, pluck, lead or pad."""

    def __init__(self, rng, role):
        self.role = role
        kinds = dict(
            bass=("saw", "square", "sine", "fm", "reese", "acid", "string", "growl"),
            pluck=("saw", "square", "fm", "string", "string", "bell", "supersaw", "triangle"),
            lead=("saw", "square", "supersaw", "fm", "triangle", "string", "acid", "vowel"),
            pad=("supersaw", "saw", "square", "fm", "organ", "triangle", "vowel"),
        )[role]
        self.kind = str(rng.choice(kinds))
        self.attack = log_uniform(rng, 0.001, 0.006) if role in ("bass", "pluck") else log_uniform(rng, 0.004, 0.05)
        if role == "pad":
            self.attack = log_uniform(rng, 0.01, 0.5)
        self.decay = log_uniform(rng, 0.08, 0.6) if role == "pluck" else log_uniform(rng, 0.2, 3)
        self.sustain = 0.0 if role == "pluck" else rng.uniform(0.2, 1)
        self.release = log_uniform(rng, 0.01, 0.08) if role == "bass" else log_uniform(rng, 0.02, 0.4)
        self.cutoff = log_uniform(rng, 1.2, 12 if role == "bass" else 25)
        self.sweep, self.sweep_time = log_uniform(rng, 1, 20), log_uniform(rng, 0.03, 0.8)
        self.resonance = log_uniform(rng, 0.6, 8 if self.kind == "acid" else 2.5)
        self.detune = log_uniform(rng, 0.002, 0.02)
        self.pulse = rng.uniform(0.2, 0.5)
        self.index, self.ratio = log_uniform(rng, 0.5, 8), float(rng.choice([0.5, 1, 1, 2, 3, 3.5, 7]))
        self.sub = rng.uniform(0, 0.8) if role == "bass" else 0.0
        self.drive = log_uniform(rng, 1.5, 20) if rng.random() < 0.45 else 0.0
        self.vibrato = rng.uniform(0, 0.006) if role == "lead" else 0.0
        self.wobble = log_uniform(rng, 1, 8) if self.kind in ("growl", "reese") or rng.random() < 0.1 else 0.0
        self.formants = [(rng.uniform(300, 900), 1.0), (rng.uniform(900, 2500), rng.uniform(0.3, 1)), (rng.uniform(2400, 3500), 0.4)]
        self.harmonics = rng.random(9) ** 2
        self.seed = int(rng.integers(2**31))
        self.cache = {}

    def note(self, key, seconds, velocity=1.0):
        """float32 [s, t]; rendered once for a key and length."""
        name = (key, round(seconds, 2))
        if name not in self.cache:
            self.cache[name] = self.render(key, seconds)
        return self.cache[name] * np.float32(velocity)

    def render(self, key, seconds):
        rng = np.random.default_rng([self.seed, key])
        count = int((seconds + self.release) * SAMPLE_RATE)
        count += -count % BLOCK
        t = np.arange(count) / SAMPLE_RATE
        frequency = 440 * 2 ** ((key - 69) / 12)
        step = frequency / SAMPLE_RATE
        phase = np.arange(count) * step
        if self.vibrato:
            phase = phase + self.vibrato * frequency / 35 * np.sin(2 * np.pi * 5.5 * t) * np.minimum(1, t / 0.3)
        stereo = self.voices(rng, phase, step, t)
        envelope = self.sustain + (1 - self.sustain) * np.exp(-t / self.decay)
        envelope *= np.minimum(1, t / self.attack) * np.clip((seconds + self.release - t) / self.release, 0, 1)
        centre = frequency * self.cutoff * (1 + self.sweep * np.exp(-t[::BLOCK] / self.sweep_time))
        if self.wobble:
            centre = centre * (0.3 + 0.7 * np.abs(np.sin(np.pi * self.wobble * t[::BLOCK])))
        out = []
        for channel in stereo:
            if self.kind in ("vowel", "growl"):
                channel = sum(gain * self.formant(channel, hertz) for hertz, gain in self.formants) + 0.1 * channel
            if self.kind not in ("sine", "string", "bell"):
                channel = sweep(channel, centre, self.resonance)
            channel = channel * envelope
            if self.sub:
                channel = channel + self.sub * np.sin(2 * np.pi * phase) * envelope
            if self.drive:
                channel = np.tanh(self.drive * channel) / np.tanh(self.drive)
            out.append(channel)
        if len(out) == 1:
            out = out * 2
        out = np.stack(out).astype(np.float32)
        return out / max(np.abs(out).max(), 1e-6)

    def formant(self, audio, hertz):
        b, a = scipy.signal.iirpeak(hertz, 6, fs=SAMPLE_RATE)
        return scipy.signal.lfilter(b, a, audio)

    def voices(self, rng, phase, step, t):
        """One channel, or two that differ."""
        kind = self.kind
        if kind in ("saw", "acid", "vowel", "growl"):
            return [saw(phase + rng.random(), step)]
        if kind == "square":
            return [saw(phase, step) - saw(phase + self.pulse, step)]
        if kind == "triangle":
            return [2 * np.abs(2 * ((phase + 0.25) % 1) - 1) - 1]
        if kind == "sine":
            glide = np.cumsum(np.exp(-t / 0.02)) * step * (self.index - 0.5 if self.index < 2 else 0)
            return [np.sin(2 * np.pi * (phase + glide))]
        if kind == "fm":
            bend = self.index * (0.2 + np.exp(-t / self.sweep_time))
            return [np.sin(2 * np.pi * phase + bend * np.sin(2 * np.pi * self.ratio * phase))]
        if kind == "bell":
            ratios = (1, 2.01, 2.76, 3.9, 5.4)
            return [sum(a * np.sin(2 * np.pi * r * phase) * np.exp(-t * r / self.decay) for a, r in zip(self.harmonics, ratios))]
        if kind == "organ":
            return [sum(a * np.sin(2 * np.pi * (h + 1) * phase) for h, a in enumerate(self.harmonics) if (h + 1) * step < 0.4)]
        if kind == "string":
            return [pluck(rng, step, len(t), self.cutoff, self.decay)]
        count = 2 if kind == "reese" else 5
        return [
            sum(saw(phase * (1 + self.detune * d) + rng.random(), step * 1.02) for d in np.linspace(-1, 1, count)) / count**0.5
            for _ in range(2)
        ]


def pluck(rng, step, count, brightness, decay):
    """Karplus-Strong: a burst of noise round a delay that dulls it."""
    period = max(4, int(round(1 / step - 0.5)))
    burst = np.zeros(count)
    burst[:period] = rng.uniform(-1, 1, period)
    smooth = 1 / (1 + brightness / 8)
    burst = scipy.signal.lfilter([1 - smooth], [1, -smooth], burst)
    loss = 0.5 * 0.001 ** (period / SAMPLE_RATE / (2 + 4 * decay))
    feedback = np.zeros(period + 2)
    feedback[0], feedback[period], feedback[period + 1] = 1, -loss, -loss
    return scipy.signal.lfilter([1], feedback, burst)
