"""What the render tests share: music on the exact grid, comparison, claims."""

import sys

import numpy as np
import soundfile

RATE = 44100
GRID = 2.0**23


def read(path, seconds):
    """The first seconds of a stereo file at 44.1 kHz as float32 [2, samples], rounded to multiples of 2**-23."""
    samples, rate = soundfile.read(path, frames=seconds * RATE, dtype="float64", always_2d=True)
    if rate != RATE or samples.shape[1] != 2:
        sys.exit(f"{path}: {rate} Hz with {samples.shape[1]} channels; these tests take stereo at {RATE} Hz")
    return (np.round(samples.T * GRID) / GRID).astype(np.float32)


def snr_db(reference, estimate):
    """Signal-to-noise ratio in dB over all channels."""
    signal = np.sum(np.square(reference, dtype=np.float64))
    noise = np.sum(np.square(reference.astype(np.float64) - estimate))
    return float("inf") if noise == 0 else 10 * np.log10(signal / noise)


def level_db(signal):
    """RMS level in dBFS."""
    return 10 * np.log10(np.mean(np.square(signal, dtype=np.float64)) + 1e-30)


def claim(holds, what):
    """Ends the program with an error unless the claim holds."""
    print(("ok: " if holds else "FAILED: ") + what, flush=True)
    if not holds:
        sys.exit(1)
