"""What producers do to a recorded voice: gates, stutters, thrown echoes. Audio is float32 [s, t]."""

import numpy as np
import scipy.ndimage

import bus
from prepare import SAMPLE_RATE


def chopped(rng, audio):
    """A gate in sixteenths, and some of them said again."""
    step = int(15 / rng.uniform(85, 150) * SAMPLE_RATE)
    pattern = rng.random(16) < rng.uniform(0.5, 0.85)
    count = audio.shape[1] // step
    pieces = audio[:, : count * step].reshape(2, count, step).copy()
    for i in np.flatnonzero(rng.random(count) < 0.12):
        repeats = int(rng.integers(1, 4))
        pieces[:, i + 1 : i + 1 + repeats] = pieces[:, i : i + 1]
    gain = np.resize(pattern, count).astype(np.float32).repeat(step)
    gain = scipy.ndimage.uniform_filter1d(gain, int(rng.uniform(0.002, 0.02) * SAMPLE_RATE))
    return pieces.reshape(2, -1) * gain


def thrown(rng, audio):
    """Echoes of some moments only."""
    send, at = np.zeros(audio.shape[1], np.float32), 0
    while at < len(send):
        at += int(rng.uniform(2, 8) * SAMPLE_RATE)
        send[at : at + int(rng.uniform(0.2, 0.8) * SAMPLE_RATE)] = 1
    send = scipy.ndimage.uniform_filter1d(send, 2000)
    seconds = rng.uniform(0.2, 0.6)
    echoes = bus.echo(rng, audio * send, seconds, rng.uniform(0.4, 0.9)) - audio * send
    if rng.random() < 0.5:
        echoes = bus.reverb(rng, echoes, rng.uniform(1, 3), rng.uniform(0.3, 1))
    return audio + echoes


def treated(rng, audio):
    """Perhaps one of them."""
    draw = rng.random()
    if draw < 0.1:
        return chopped(rng, audio)
    return thrown(rng, audio) if draw < 0.25 else audio
