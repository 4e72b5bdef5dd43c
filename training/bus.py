"""Mixing effects: reverb, echo, ducking, compression. Audio is float32 [s, t]."""

import numpy as np
import scipy.ndimage
import scipy.signal

from prepare import SAMPLE_RATE

HOP = 64


def level(audio, attack, release):
    """Envelope of the louder channel, one value per HOP; times in seconds."""
    peak = np.abs(audio).max(0)
    peak = np.pad(peak, (0, -len(peak) % HOP)).reshape(-1, HOP).max(1)
    rise, fall = np.exp(-HOP / SAMPLE_RATE / np.array((attack, release)))
    out, last = np.empty(len(peak)), 0.0
    for i, x in enumerate(peak.tolist()):
        last = x + (last - x) * (rise if x > last else fall)
        out[i] = last
    return out


def curve(gain, length):
    """Interpolate gains from one per HOP to one per sample, [t]"""
    at = np.arange(length, dtype=np.float32) / HOP
    return np.interp(at, np.arange(len(gain)), gain).astype(np.float32)


def compression(audio, threshold_db, ratio, attack=0.005, release=0.12):
    """Gain [t] of a compressor. Apply the mixture's gain to every stem, so that the stems still sum to it."""
    loud = 20 * np.log10(level(audio, attack, release) + 1e-6)
    over = np.maximum(0, loud - threshold_db)
    return curve(10 ** (-over * (1 - 1 / ratio) / 20), audio.shape[-1])


def limit(audio, ceiling=0.97):
    """Gain [t] of a look-ahead limiter: the smoothed minimum of the gains nearby."""
    peak = np.abs(audio).max(0)
    peak = np.pad(peak, (0, -len(peak) % HOP)).reshape(-1, HOP).max(1)
    gain = np.minimum(1, ceiling / np.maximum(peak, 1e-6))
    gain = scipy.ndimage.uniform_filter1d(scipy.ndimage.minimum_filter1d(gain, 15), 9)
    return curve(gain, audio.shape[-1])


def duck(hits, length, depth, seconds, shape=1.5):
    """Gain [t] that dips at each of `hits` (samples) and rises again, as a pumping side-chain does."""
    dip = depth * (1 - np.linspace(0, 1, int(seconds * SAMPLE_RATE), dtype=np.float32) ** (1 / shape))
    gain = np.ones(length, np.float32)
    for at in hits:
        part = gain[at : at + len(dip)]
        np.minimum(part, 1 - dip[: len(part)], out=part)
    return scipy.ndimage.uniform_filter1d(gain, 128)


def reverb(rng, audio, seconds, wet):
    """Reverb of decaying noise that gets darker, different for each channel."""
    t = np.arange(int(min(seconds * 1.2, 3) * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal((2, len(t)), dtype=np.float32) * np.exp(-6.9 * t / seconds)
    dull = rng.uniform(0.1, 0.85)
    tail = scipy.signal.lfilter([1 - dull], [1, -dull], tail)
    before = np.zeros((2, int(rng.uniform(0, 0.04) * SAMPLE_RATE)), np.float32)
    tail = np.concatenate((before, tail / np.sqrt((tail**2).sum(-1, keepdims=True))), -1)
    room = scipy.signal.oaconvolve(audio, tail.astype(np.float32), axes=-1)[:, : audio.shape[-1]]
    return (audio + wet * room).astype(np.float32)


def echo(rng, audio, seconds, wet):
    """Fading echo that alternates between the channels."""
    out, gain = audio.copy(), wet
    step = int(seconds * SAMPLE_RATE)
    crossed = rng.random() < 0.6
    for i in range(1, 5):
        if step * i >= audio.shape[-1]:
            break
        source = audio[::-1] if crossed and i % 2 else audio
        out[:, step * i :] += gain * source[:, : audio.shape[-1] - step * i]
        gain *= rng.uniform(0.4, 0.7)
    return out


def tilt(rng, audio, strength=1.0):
    """A random first-order shelf and a random bell."""
    hertz, gain = np.exp(rng.uniform(np.log(200), np.log(6000))), 10 ** (rng.normal(0, 3 * strength) / 20)
    b, a = scipy.signal.butter(1, hertz, fs=SAMPLE_RATE)
    low = scipy.signal.lfilter(b, a, audio).astype(np.float32)
    return low + np.float32(gain) * (audio - low)


def saturate(rng, audio, most=6.0):
    """Odd and slight even distortion at a random drive; keeps the peak."""
    peak = np.abs(audio).max() + 1e-6
    gain, bias = np.exp(rng.uniform(0, np.log(most))), rng.uniform(0, 0.2)
    out = np.tanh(gain * audio / peak + bias) - np.tanh(bias)
    return (out * peak / (np.abs(out).max() + 1e-6)).astype(np.float32)
