"""A baseline of plain signal processing: harmonic/percussive median filters, a low-pass filter, mid/side."""

import numpy as np
import scipy.ndimage
import scipy.signal

from prepare import SAMPLE_RATE

N_FFT, HOP = 2048, 512


def separate(mixture):
    """mixture: [s, t] -> stems [n, s, t] in the order drums, bass, other, vocals; they sum to the mixture."""
    window = dict(fs=SAMPLE_RATE, nperseg=N_FFT, noverlap=N_FFT - HOP)
    freqs, _, x = scipy.signal.stft(mixture, **window)
    magnitude = np.abs(x).mean(0)
    harmonic = scipy.ndimage.median_filter(magnitude, (1, 31)) ** 2
    percussive = scipy.ndimage.median_filter(magnitude, (31, 1)) ** 2
    drums = percussive / (percussive + harmonic + 1e-12)
    low = 1 / (1 + (freqs[:, None] / 180) ** 8)
    mid, side = (x[0] + x[1]) / 2, (x[0] - x[1]) / 2
    centre = np.abs(mid) ** 2 / (np.abs(mid) ** 2 + 4 * np.abs(side) ** 2 + 1e-12)
    voice = centre * (1 - low) / (1 + (freqs[:, None] / 8000) ** 4)
    masks = np.stack((drums, (1 - drums) * low, (1 - drums) * (1 - low) * (1 - voice), (1 - drums) * (1 - low) * voice))
    out = scipy.signal.istft(masks[:, None] * x, **window)[1]
    return out[..., : mixture.shape[-1]].astype(np.float32)
