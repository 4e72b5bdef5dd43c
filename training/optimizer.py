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
    """Momentum, Nesterov look-ahead, orthogonalised step; `blocks` splits a fused matrix (to_qkv) by rows."""

    def __init__(self, groups, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, blocks=1))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp(m, group["momentum"])
                g = orthogonalize(g.view(group["blocks"], -1, p.shape[-1]))
                scale = max(1.0, g.shape[-2] / g.shape[-1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(g.reshape(p.shape), alpha=-group["lr"] * scale)


def optimizers(net, muon_lr, adam_lr):
    """Both, with every parameter in one of them."""
    fused, matrices, rest = [], [], []
    for name, p in net.named_parameters():
        if not p.requires_grad:
            continue
        if name.startswith("layers.") and p.ndim == 2 and "to_gates" not in name:
            (fused if "to_qkv" in name else matrices).append(p)
        else:
            rest.append(p)
    muon = Muon(
        [dict(params=fused, blocks=3), dict(params=matrices, blocks=1)], lr=muon_lr, weight_decay=0.01
    )
    adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [muon, adam]
