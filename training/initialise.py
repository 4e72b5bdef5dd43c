"""An initialisation that saves most of the first hours of training.

A RoFormer begins slowly: its bands see complex numbers of random phase and unit level, and must first learn what a
magnitude is; until then the masks are constants. Three things are therefore put in at the start, all ordinary weights:

1. Each band's features are whitened (`gamma`) and projected group by group of neighbouring bins: mid and side, each as a pair
   in quadrature.
2. The first feed-forward rectifies: GELU(u) + GELU(-u) is nearly |u|, so the real half of every pair becomes the
   magnitude of its group; the other half keeps its sign.
3. The masks start as the best constants over some training batches.
"""

import torch

import fused

SHARPNESS = 2.0


@torch.no_grad()
def statistics(net, data, batches):
    """Best constant real mask [n, f] of every stem and bin, and each feature's mean square after its band's norm."""
    cross, power, squares = 0.0, 0.0, 0.0
    for index in range(batches):
        target = data.make(-1 - index)
        b, n, s, length = target.shape
        stems = fused.spectrum(net, target.reshape(b * n, s, length)).unflatten(0, (b, n))
        mixture = stems.sum(1, keepdim=True)
        weight = 1 / (mixture.abs().square().mean((1, 2, 3, 4), keepdim=True) + 1e-6)
        cross = cross + (weight * (stems * mixture.conj()).real).sum((0, 2, 4))
        power = power + (weight * mixture.abs().square()).sum((0, 2, 4))
        flat = torch.view_as_real(mixture[:, 0]).flatten(2)
        bands = [torch.nn.functional.normalize(x, dim=-1) for x in flat.split(net.band_split.dim_inputs, -1)]
        squares = squares + torch.cat([x * x.shape[-1] ** 0.5 for x in bands], -1).square().mean((0, 1)) / batches
    return (cross / (power + 1e-6 * power.max())).clamp(0.02, 0.95), squares


def project(width, dim, generator):
    """[dim, width]: rows in fours, (mid re, side re) in the first half of the rows, (mid im, side im) in the second."""
    bins = width // 4
    count = min(bins, dim // 4)
    weight = torch.zeros(dim, bins, 2, 2)
    edges = torch.linspace(0, bins, count + 1).round().long().tolist()
    for g, (first, last) in enumerate(zip(edges, edges[1:])):
        phase = 2 * torch.pi * torch.rand(last - first, generator=generator)
        cos, sin = phase.cos(), phase.sin()
        for side in (0, 1):
            for s, sign in ((0, 1.0), (1, -1.0 if side else 1.0)):
                real, imaginary = weight[2 * g + side], weight[dim // 2 + 2 * g + side]
                real[first:last, s, 0], real[first:last, s, 1] = sign * cos, -sign * sin
                imaginary[first:last, s, 0], imaginary[first:last, s, 1] = sign * sin, sign * cos
        weight[[2 * g, dim // 2 + 2 * g]] /= (4 * (last - first)) ** 0.5
        weight[[2 * g + 1, dim // 2 + 2 * g + 1]] /= (2 * (last - first)) ** 0.5
    return weight.reshape(dim, width)


def rectify(feed, dim):
    """x_re -> magnitude of the pair, centred; x_im stays. Half of the hidden units remain free."""
    _, up, _, _, down, _ = feed.net
    half = dim // 2
    eye = torch.eye(dim)
    up.weight[:dim], up.weight[dim : 2 * dim] = SHARPNESS * eye, -SHARPNESS * eye
    up.bias[: 2 * dim] = 0
    down.weight.mul_(0.3)
    down.weight[:, : 2 * dim] = 0
    down.bias.zero_()
    for j in range(half):
        for sign, offset in ((1, 0), (-1, dim)):
            down.weight[j, offset + j] = (1.2 - sign) / SHARPNESS
            down.weight[j, offset + half + j] = 1.2 / SHARPNESS
        down.bias[j] = -1.2 * 1.6


@torch.no_grad()
def initialise(net, data, batches=16):
    generator = torch.Generator().manual_seed(1)
    goal, squares = statistics(net, data, batches)
    dim = net.final_norm.gamma.shape[0]
    start = 0
    for width, (norm, linear) in zip(net.band_split.dim_inputs, net.band_split.to_features):
        white = squares[start : start + width].clamp(min=1e-3) ** -0.5
        norm.gamma.copy_(white.clamp(max=10.0))
        linear.weight.copy_(project(width, dim, generator))
        linear.bias.zero_()
        start += width
    for index, layer in enumerate(net.layers):
        for axis, block in enumerate(layer):
            for attend, feed in block.layers:
                attend.to_out[0].weight.mul_(0.1 if index + axis == 0 else 0.3)
                if index + axis == 0:
                    rectify(feed, dim)
                else:
                    feed.net[4].weight.mul_(0.3)
    for mask, estimator in zip(goal, net.mask_estimators):
        first = 0
        for width, mlp in zip(net.band_split.dim_inputs, estimator.to_freqs):
            linear = mlp[0][-1]
            bins = width // (2 * net.audio_channels)
            linear.weight.mul_(0.2)
            linear.bias.zero_()
            # The gate opens half at the start, hence twice the mask.
            linear.bias[0:width:2] = 2 * mask[first : first + bins].repeat_interleave(net.audio_channels)
            first += bins
