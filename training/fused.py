"""A faster forward pass of the reference `BSRoformer`, over the same parameters.

The reference runs one small Linear per band and stem. Here, bands of equal width form one batched product, and rotation is one complex
multiplication. `python fused.py [--config CONFIG]` checks that the results agree.

Axis letters as in the reference: b batch, s audio channel, f bin, t frame, c (re, im), k band, n stem, d feature, h head.
"""

import argparse
import functools
import itertools
import types
from pathlib import Path

import torch
import torch.nn.functional as F


def rms_norm(x, gamma):
    return F.rms_norm(x, (x.shape[-1],), gamma, 1e-24)


def rotation(freqs, length):
    """Unit complex numbers, [length, d/2]; `freqs` holds one frequency a pair."""
    angle = torch.arange(length, dtype=torch.float32, device=freqs.device)[:, None] * freqs[None, :]
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotate the interleaved pairs of the last axis."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def attend(q, k, v):
    """Attention of short sequences, [batch, h, length, d]: on a CPU the flash kernel's backward pass takes a quarter of a step."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    # Outside the product, as autocast would make it bf16 again.
    scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).float()
    weights = (scores - scores.amax(-1, keepdim=True).detach()).exp()
    return (weights.to(v.dtype) @ v) / weights.sum(-1, keepdim=True)


def attention(block, x, cos, sin):
    """x: [batch, length, d]"""
    b, length, _ = x.shape
    x = rms_norm(x, block.norm.gamma)
    qkv = F.linear(x, block.to_qkv.weight).view(b, length, 3, block.heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    out = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
    gates = F.linear(x, block.to_gates.weight, block.to_gates.bias).sigmoid()
    out = out.transpose(1, 2) * gates[..., None]
    return F.linear(out.flatten(-2), block.to_out[0].weight)


def feed_forward(block, x):
    norm, up, _, _, down, _ = block.net
    x = F.linear(rms_norm(x, norm.gamma), up.weight, up.bias)
    return F.linear(F.gelu(x), down.weight, down.bias)


def transformer(block, x, cos, sin):
    for attend, feed in block.layers:
        x = x + attention(attend, x, cos, sin)
        x = x + feed_forward(feed, x)
    return x


def groups(widths):
    """Runs of equal widths as (width, first band, count)."""
    first = 0
    for width, run in itertools.groupby(widths):
        count = len(list(run))
        yield width, first, count
        first += count


def masks(net, spectrum):
    """spectrum: [b, t, (f s c)] -> mask [b, n, t, (f s c)]"""
    b, t, _ = spectrum.shape
    widths = net.band_split.dim_inputs
    features, start = [], 0
    for width, first, count in groups(widths):
        x = spectrum[..., start : start + width * count].reshape(b * t, count, width)
        start += width * count
        modules = net.band_split.to_features[first : first + count]
        gamma = torch.stack([m[0].gamma for m in modules])
        weight = torch.stack([m[1].weight for m in modules])
        bias = torch.stack([m[1].bias for m in modules])
        x = F.normalize(x, dim=-1) * (width**0.5 * gamma)
        features.append(torch.baddbmm(bias[:, None], x.transpose(0, 1), weight.transpose(1, 2)))
    x = torch.cat(features)  # [k, (b t), d]
    k, _, d = x.shape

    time, freq = net.layers[0]
    time_cos, time_sin = rotation(time.layers[0][0].rotary_embed.freqs, t)
    freq_cos, freq_sin = rotation(freq.layers[0][0].rotary_embed.freqs, k)
    x = x.view(k * b, t, d)
    for time, freq in net.layers:
        x = transformer(time, x, time_cos, time_sin)
        x = x.view(k, b * t, d).transpose(0, 1)
        x = transformer(freq, x, freq_cos, freq_sin)
        x = x.transpose(0, 1).reshape(k * b, t, d)
    x = rms_norm(x.view(k, b * t, d), net.final_norm.gamma)

    n = net.num_stems
    parts = []
    for width, first, count in groups(widths):
        linears = [[m.to_freqs[i][0][0] for m in net.mask_estimators] for i in range(first, first + count)]
        weight = torch.stack([torch.cat([m.weight for m in band]) for band in linears])
        bias = torch.stack([torch.cat([m.bias for m in band]) for band in linears])
        y = torch.baddbmm(bias[:, None], x[first : first + count], weight.transpose(1, 2))
        y = F.glu(y.view(count, b, t, n, 2 * width), -1)
        parts.append(y.permute(1, 3, 2, 0, 4).reshape(b, n, t, count * width))
    return torch.cat(parts, -1)


def spectrum(net, audio):
    """audio: [b, s, t] -> complex [b, t, f, s] as the model's own STFT"""
    b, s, length = audio.shape
    window = net.stft_window_fn(device=audio.device)
    x = torch.stft(audio.reshape(b * s, length), **net.stft_kwargs, window=window, return_complex=True)
    return x.view(b, s, *x.shape[-2:]).permute(0, 3, 2, 1).contiguous()


def separate(net, mixture, masks=masks):
    """mixture: complex [b, t, f, s] -> stems, complex [b, n, t, f, s]"""
    b, t, f, s = mixture.shape
    flat = torch.view_as_real(mixture).reshape(b, t, f * s * 2)
    mask = masks(net, flat)
    return torch.view_as_complex(mask.view(b, -1, t, f, s, 2)) * mixture[:, None]


def overlapped(frames, hop):
    """Sum of frames that begin `hop` samples apart: [i, t, sample] -> [i, sample]"""
    pieces = frames.split(hop, -1)
    last = len(pieces) - 1
    return sum(F.pad(x, (0, hop - x.shape[-1], i, last - i)) for i, x in enumerate(pieces)).flatten(1)


def waveform(net, stems):
    """stems: complex [b, n, t, f, s] -> audio [b, n, s, t]; `torch.istft` checks its window, for which a GPU must wait."""
    b, n, t, f, s = stems.shape
    size, hop = net.stft_kwargs["n_fft"], net.stft_kwargs["hop_length"]
    window = net.stft_window_fn(device=stems.device)
    before = (size - len(window)) // 2
    window = F.pad(window, (before, size - len(window) - before))
    scale = "ortho" if net.stft_kwargs["normalized"] else "backward"
    frames = torch.fft.irfft(stems.permute(0, 1, 4, 2, 3).reshape(b * n * s, t, f), size, norm=scale) * window
    inside = slice(size // 2, (t - 1) * hop + size - size // 2)
    covered = overlapped((window * window).expand(1, t, size), hop)
    return (overlapped(frames, hop)[:, inside] / covered[:, inside]).view(b, n, s, -1)


def forward(net, audio):
    """Same result as `net(audio)`: [b, s, t] -> [b, n, s, t]"""
    return waveform(net, separate(net, spectrum(net, audio)))


def istft_difference(normalized):
    """Largest, of `waveform` to `torch.istft`, for random settings."""
    draw = lambda low, high: int(torch.randint(low, high + 1, ()))
    size = draw(16, 64)
    length = draw(size // 2, size)
    options = dict(n_fft=size, hop_length=draw(2, length // 2), win_length=length, normalized=normalized)
    net = types.SimpleNamespace(stft_kwargs=options, stft_window_fn=functools.partial(torch.hann_window, length))
    stems = torch.randn(2, 3, draw(4, 12), size // 2 + 1, 2, dtype=torch.complex64)
    expected = torch.istft(stems.permute(0, 1, 4, 3, 2).flatten(0, 2), **options, window=net.stft_window_fn())
    return (waveform(net, stems).flatten(0, 2) - expected).abs().max().item()


def main():
    from model import CONFIG, build, read_config

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG)
    args = parser.parse_args()
    torch.manual_seed(0)
    net = build(read_config(args.config)).eval()
    audio = 0.1 * torch.randn(2, 2, 44100)
    with torch.no_grad():
        difference = (net(audio) - forward(net, audio)).abs().max().item()
    print(f"largest difference to the reference: {difference:.2e}")
    assert difference < 1e-5
    difference = max(istft_difference(i % 2 == 1) for i in range(40))
    print(f"largest difference to torch.istft: {difference:.2e}")
    assert difference < 1e-5


if __name__ == "__main__":
    main()
