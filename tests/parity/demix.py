"""From chunks to a song, by MSST's rule, with a fresh window for every chunk (batch size 1)."""

import torch
from torch.nn.functional import pad


def demix(model, mixture, chunk, overlap):
    """Separates `mixture` [s, samples]; returns (stems [n, s, samples], weight [samples]).

    Where the summed weight is zero the rule divides 0 by 0 and puts a 0: with one chunk a song, the last sample of a
    chunk that is exactly full; without overlap, two samples at every seam.
    """
    samples = mixture.shape[1]
    fade, step = chunk // 10, chunk // overlap
    border = chunk - step
    bordered = border > 0 and samples > 2 * border
    if bordered:
        mixture = pad(mixture, (border, border), mode="reflect")
    total = mixture.shape[1]

    slope = torch.linspace(0, 1, fade)
    result, weight = None, torch.zeros(total)
    for start in range(0, total, step):
        piece = mixture[:, start:start + chunk]
        here = piece.shape[1]
        mode = "reflect" if here > chunk // 2 else "constant"
        stems = run(model, pad(piece, (0, chunk - here), mode=mode))
        window = torch.ones(chunk)
        window[:fade] = slope
        window[chunk - fade:] = slope.flip(0)
        if start == 0:
            window[:fade] = 1
        elif start + step >= total:
            window[chunk - fade:] = 1
        if result is None:
            result = torch.zeros(stems.shape[0], stems.shape[1], total)
        result[..., start:start + here] += stems[..., :here] * window[:here]
        weight[start:start + here] += window[:here]
    result = torch.nan_to_num(result / weight, nan=0.0)
    if bordered:
        result, weight = result[..., border:-border], weight[border:-border]
    return result, weight


def with_tta(model, mixture, chunk, overlap):
    """The mean over the mixture, its channels in reverse order, and its polarity inverted, each undone."""
    plain, weight = demix(model, mixture, chunk, overlap)
    swapped, _ = demix(model, mixture.flip(0), chunk, overlap)
    inverted, _ = demix(model, -mixture, chunk, overlap)
    return (plain + swapped.flip(1) - inverted) / 3, weight


def with_big_shifts(model, mixture, chunk, overlap, shifts):
    """The mean over circular shifts of the mixture by multiples of samples // shifts, each undone."""
    stride, parts, weights = mixture.shape[1] // shifts, [], []
    for i in range(shifts):
        stems, weight = demix(model, mixture.roll(i * stride, dims=1), chunk, overlap)
        parts.append(stems.roll(-i * stride, dims=2))
        weights.append(weight.roll(-i * stride))
    return torch.stack(parts).mean(0), torch.stack(weights).amin(0)


def run(model, chunk):
    """One chunk [s, samples] through the model: [n, s, samples]; the model must return every sample."""
    with torch.inference_mode():
        out = model(chunk[None])
    out = out[0] if out.ndim == 4 else out
    assert out.shape[-1] == chunk.shape[-1], "demix needs a chunk that the model returns whole: a multiple of the hop"
    return out
