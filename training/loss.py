"""The training loss: an SDR-like term per stem, plus the reference's L1 of the waveform and of the complex STFT.

The reference's loss alone, on a small model, has a trap: silence is nearly the best answer while nothing is known, and a gated mask
that has reached silence hardly learns. So the leading term is the logarithm of the error's level against the stem's, both
lifted by a tenth of the mixture's: the gain for a stem well separated outweighs the one for keeping an absent stem silent,
which counts half. L1 has a tenth of the weight, each term divided by the same measure of the stem, so that a quiet
stem counts as much as a loud one.

Windows: the model's own in every step; 4096 and 512 in turn, at half a window's hop. They stand for the reference's five at hop
147, which would cost more than the model on a CPU. The STFT is linear, so that one transform of the difference serves.
"""

import torch

import fused

WINDOWS = (4096, 512)


def mean_magnitude(x):
    """[i, ..., c] -> mean over all but i of the complex magnitude"""
    return (x[..., 0] ** 2 + x[..., 1] ** 2 + 1e-12).sqrt().flatten(1).mean(1)


def balance(difference, goal, mixture, audio, target, whole, other, ratio):
    """Terms per example and stem, [i]; spectra as [i, ..., c], waveforms as [i, t]."""
    floor = mean_magnitude(goal) + 0.1 * mean_magnitude(mixture) + 1e-5
    wave_floor = target.abs().mean(1) + 0.1 * whole.abs().mean(1) + 1e-5
    terms = mean_magnitude(difference) / floor + audio.abs().mean(1) / wave_floor
    terms = (terms + mean_magnitude(other) / (floor * ratio)) / 3
    error, energy, mixed = (x.square().mean(1) + 1e-10 for x in (audio, target, whole))
    level = 0.5 * torch.log((error + 0.1 * mixed) / (energy + 0.1 * mixed))
    present = energy > 1e-3 * mixed
    decibels = torch.where(present, 10 * torch.log10(energy / error), torch.nan)
    return (level + 0.1 * terms) * torch.where(present, 1.0, 0.5), decibels


def loss(net, estimate, target, mixture, step, balance=balance):
    """estimate: complex [b, n, t, f, s]; target: [b, n, s, t]; mixture: complex [b, t, f, s]"""
    b, n, s, length = target.shape
    with torch.no_grad():
        goal = fused.spectrum(net, target.reshape(b * n, s, length)).view(estimate.shape)
        whole = target.sum(1, keepdim=True).expand_as(target)
        mixture = mixture[:, None].expand_as(estimate)
    difference = estimate - goal
    audio = fused.waveform(net, difference)
    window = WINDOWS[step % len(WINDOWS)]
    other = torch.stft(
        audio.flatten(0, 2),
        window,
        window // 2,
        window=torch.hann_window(window, device=audio.device),
        center=False,
        return_complex=True,
    )
    other = torch.view_as_real(other).unflatten(0, (b * n, s))
    spectra = [torch.view_as_real(x.flatten(0, 1)) for x in (difference, goal, mixture)]
    waves = [x.reshape(b * n, -1) for x in (audio, target, whole)]
    ratio = torch.full((), (window / net.stft_kwargs["n_fft"]) ** 0.5, device=audio.device)
    terms, decibels = balance(*spectra, *waves, other, ratio)
    return terms.mean(), decibels.detach().view(b, n).nanmean(0)
