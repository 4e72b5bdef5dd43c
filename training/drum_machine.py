"""A synthesised drum machine with random parameters: kits like those of analogue drum machines, from clean to heavily distorted.

Each voice is a function of a generator that gives one hit, float32 [t] at a peak of about 1.
"""

import numpy as np
import scipy.signal

from prepare import SAMPLE_RATE


def clock(seconds):
    return np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE


def log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def band(rng, noise, low, high, order=2):
    """Noise between two frequencies in hertz."""
    high = min(high, 0.48 * SAMPLE_RATE)
    return scipy.signal.sosfilt(scipy.signal.butter(order, (low, high), "band", fs=SAMPLE_RATE, output="sos"), noise)


def noise(rng, t):
    return rng.standard_normal(len(t), dtype=np.float32)


def sine(frequency, phase=0.0):
    """frequency: hertz, [t]"""
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE + phase)


def drive(rng, hit, chance=0.5):
    """Randomly saturated, normalised to 1, with a fade-out."""
    hit = hit / max(np.abs(hit).max(), 1e-6)
    if rng.random() < chance:
        gain = log_uniform(rng, 1.2, 8)
        hit = np.tanh(gain * hit + rng.uniform(0, 0.3)) if rng.random() < 0.8 else np.clip(gain * hit, -1, 1)
        hit = hit - hit[-1]
    fade = min(len(hit), 400)
    hit[-fade:] *= np.linspace(1, 0, fade)
    return (hit / max(np.abs(hit).max(), 1e-6)).astype(np.float32)


def kick(rng):
    decay = log_uniform(rng, 0.07, 0.9)
    t = clock(min(1.8, 4 * decay + 0.05))
    base = log_uniform(rng, 38, 75)
    frequency = base * (1 + rng.uniform(1, 6) * np.exp(-t / log_uniform(rng, 0.006, 0.06)))
    frequency += rng.uniform(0, 2500) * np.exp(-t / 0.003)
    hit = sine(frequency, rng.uniform(0, 1)) * np.exp(-((t / decay) ** rng.uniform(0.7, 1.6)))
    click = noise(rng, t) * np.exp(-t / rng.uniform(0.001, 0.006)) * rng.uniform(0, 0.5)
    return drive(rng, hit + click, 0.6)


def snare(rng):
    decay = log_uniform(rng, 0.06, 0.35)
    t = clock(4 * decay + 0.05)
    base = rng.uniform(140, 260)
    bend = 1 + rng.uniform(0, 1) * np.exp(-t / 0.012)
    body = sine(base * bend) + rng.uniform(0, 0.8) * sine(base * rng.uniform(1.4, 1.9) * bend)
    body *= np.exp(-t / log_uniform(rng, 0.03, 0.15))
    rattle = band(rng, noise(rng, t), rng.uniform(300, 2000), rng.uniform(6000, 18000)) * np.exp(-t / decay)
    return drive(rng, rng.uniform(0.2, 1) * body + rng.uniform(0.4, 1.5) * rattle, 0.5)


def clap(rng):
    decay = log_uniform(rng, 0.06, 0.3)
    t = clock(4 * decay + 0.1)
    gap = rng.uniform(0.007, 0.014)
    envelope = np.exp(-t / decay) * rng.uniform(0.4, 1)
    for i in range(int(rng.integers(2, 5))):
        after = t - i * gap
        envelope = np.maximum(envelope * (after > 0), np.exp(-np.maximum(after, 0) / 0.004) * (after >= 0))
    return drive(rng, band(rng, noise(rng, t), rng.uniform(500, 1000), rng.uniform(2500, 9000), 1) * envelope, 0.3)


def rim(rng):
    t = clock(0.12)
    tones = sum(sine(np.full_like(t, rng.uniform(300, 2500))) for _ in range(2))
    return drive(rng, (tones + 0.3 * noise(rng, t)) * np.exp(-t / log_uniform(rng, 0.005, 0.03)), 0.4)


def metal(rng, t):
    """Six inharmonic square waves with noise."""
    base = rng.uniform(180, 480)
    ratios = np.array([1, 1.34, 1.46, 1.83, 2.1, 2.55]) * rng.uniform(0.93, 1.07, 6)
    tones = sum(np.sign(np.sin(2 * np.pi * base * r * t + rng.uniform(0, 6))) for r in ratios)
    mix = rng.uniform(0, 1)
    return (1 - mix) * tones / 3 + mix * noise(rng, t)


def cymbal(rng, decay, low):
    t = clock(min(2.5, 4 * decay + 0.03))
    hit = band(rng, metal(rng, t), low, rng.uniform(11000, 20000)) * np.exp(-t / decay) * np.minimum(1, t / 0.0006)
    return drive(rng, hit, 0.2)


def hat(rng):
    return cymbal(rng, log_uniform(rng, 0.012, 0.07), log_uniform(rng, 4000, 9500))


def open_hat(rng):
    return cymbal(rng, log_uniform(rng, 0.1, 0.4), log_uniform(rng, 3500, 9000))


def ride(rng):
    return cymbal(rng, log_uniform(rng, 0.25, 0.9), log_uniform(rng, 2500, 7000))


def crash(rng):
    return cymbal(rng, log_uniform(rng, 0.5, 1.2), log_uniform(rng, 1200, 5000))


def tom(rng, base):
    decay = log_uniform(rng, 0.1, 0.45)
    t = clock(4 * decay)
    frequency = base * (1 + rng.uniform(0.2, 1.5) * np.exp(-t / 0.03))
    hit = sine(frequency) * np.exp(-t / decay) + rng.uniform(0, 0.25) * noise(rng, t) * np.exp(-t / 0.02)
    return drive(rng, hit, 0.4)


def percussion(rng):
    """Cowbells, blocks, shakers, zaps."""
    kind = rng.integers(4)
    if kind == 0:
        t = clock(0.5)
        base = rng.uniform(400, 900)
        tones = sum(np.sign(np.sin(2 * np.pi * base * r * t)) for r in (1, rng.uniform(1.35, 1.55)))
        hit = band(rng, tones, base * 0.8, base * 5, 1) * np.exp(-t / log_uniform(rng, 0.03, 0.15))
    elif kind == 1:
        t = clock(0.2)
        hit = sine(np.full_like(t, log_uniform(rng, 500, 3000))) * np.exp(-t / log_uniform(rng, 0.01, 0.05))
    elif kind == 2:
        t = clock(0.15)
        rise = rng.uniform(0.005, 0.04)
        hit = band(rng, noise(rng, t), 4000, 15000) * np.minimum(1, t / rise) * np.exp(-t / rng.uniform(0.02, 0.05))
    else:
        t = clock(0.4)
        glide = np.exp(-t / log_uniform(rng, 0.01, 0.08))
        hit = sine(log_uniform(rng, 60, 300) + log_uniform(rng, 800, 6000) * glide) * np.exp(-t / rng.uniform(0.05, 0.12))
    return drive(rng, hit, 0.3)


def kit(rng):
    """One hit a voice, named as `Song.hits` names them."""
    return dict(
        kick=kick(rng),
        snare=(snare, snare, clap, rim)[rng.integers(4)](rng),
        clap=clap(rng),
        hat=hat(rng),
        open=open_hat(rng),
        ride=ride(rng),
        crash=crash(rng),
        tom_hi=tom(rng, rng.uniform(150, 260)),
        tom_mid=tom(rng, rng.uniform(100, 160)),
        tom_lo=tom(rng, rng.uniform(60, 110)),
        percussion=percussion(rng),
        percussion_2=percussion(rng),
    )
