"""Muon for the transformers' matrices, AdamW for everything else."""

import torch


def orthogonalize(g, steps=5):
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrices; g: [batch, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = g.shape[-2] > g.shape[-1]
    if tall:
        x = x.transpose(-2, -1)
    for _ in range(steps):
        gram = x @ x.transpose(-2, -1)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-2, -1) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, Nesterov look-ahead, orthogonalised step; a group holds matrices of one shape, taken together.

    `blocks` splits a fused matrix (to_qkv) by rows.
    """

    def __init__(self, groups, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, blocks=1))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            looked_ahead = []
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                looked_ahead.append(p.grad.lerp(m, group["momentum"]))
            rows, columns = looked_ahead[0].shape
            steps = torch.stack(looked_ahead).view(-1, rows // group["blocks"], columns)
            steps = orthogonalize(steps) * max(1.0, steps.shape[-2] / columns) ** 0.5
            for p, step in zip(group["params"], steps.view(-1, rows, columns)):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"])


def optimizers(net, muon_lr, adam_lr):
    """Both, with every parameter in one of them."""
    matrices, rest, bands = {}, [], []
    for name, p in net.named_parameters():
        if not p.requires_grad:
            continue
        if name.startswith("layers.") and p.ndim == 2 and "to_gates" not in name:
            matrices.setdefault((3 if "to_qkv" in name else 1, p.shape), []).append(p)
        else:
            (bands if name.startswith("band_split") else rest).append(p)
    groups = [dict(params=params, blocks=blocks) for (blocks, _), params in matrices.items()]
    muon = Muon(groups, lr=muon_lr, weight_decay=0.01)
    # The wide inputs of the bands add up many small, noisy steps.
    slow = dict(params=bands, scale=0.3)
    adam = torch.optim.AdamW([dict(params=rest, scale=1.0), slow], lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [muon, adam]
