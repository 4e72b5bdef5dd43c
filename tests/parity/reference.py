"""The reference models: where they come from, how their weights are drawn, what is read out of them.

Two PyPI packages install a module of the same name, so a process binds itself to one package with `use` and keeps it.
Axis letters: b batch, n stem, s audio channel, f frequency bin, t frame, c complex, k band, d feature.
"""

import copy
import importlib
import importlib.machinery
import math
import random
import sys
import types
import unittest.mock
from pathlib import Path

import torch
from torch import nn
from einops import rearrange

# Package as named in a case -> (what is installed, version, folder below `references`).
PACKAGES = {
    "lossless-bs-roformer": ("lossless-bs-roformer", "1.0.0"),
    "bs-roformer": ("bs-roformer", "1.2.4"),
    "audio-separator": ("audio-separator", "0.47.1"),
    # The options that only the MSST trainer implements, assembled from submodules of bs-roformer.
    "msst": ("bs-roformer", "1.2.4"),
    # Biases in the attention (MIT; PyPI).
    "pymss-core": ("pymss-core", "0.1.14"),
    # The mask estimators of BS-RoFormer Large-Inst v2 (MIT; PyPI), on the trunk of `msst`.
    "splifft": ("splifft", "0.0.9"),
    # Those of BS-RoFormer FNO (MIT; PyPI), on the trunk of `msst`; sizes as in openmirlab/bs-roformer-infer,
    # src/bs_roformer/fno.py, commit 9c4284573bc78d06586e8cd72a5be35c1c2b40e7 (MIT).
    "neuraloperator": ("neuraloperator", "1.0.2"),
    # SiameseNorm, assembled from submodules of bs-roformer in the order of openmirlab/bs-roformer-infer,
    # src/bs_roformer/siamese.py, commit cc42d460497061623dd76951c67895cbefba9df0 (MIT).
    "siamese": ("bs-roformer", "1.2.4"),
    # The segmentation heads of BS-RoFormer HyperACE v1 and v2 (MIT; PyPI), on the trunk of `msst`. MSST-WebUI (AGPL-3.0),
    # modules/bs_roformer/hyperace.py, commit 2aee2cc20b55ab6b080cd4c7bc0e26db7d57a2ee, has other strides in v1.
    "hyperace-v1": ("splifft", "0.0.9"),
    "hyperace-v2": ("pymss-core", "0.1.14"),
    # Conformer layers (MIT; PyPI), which state models/bs_roformer/bs_conformer.py and mel_band_conformer.py of
    # ZFTurbo/Music-Source-Separation-Training (MIT), commit ccc011abf7f89dd7922bb2888d48493b575c0289, on the trunk of `msst`.
    "conformer": ("pymss-core", "0.1.14"),
}

# References that need a second package for the trunk.
TRUNKS = {name: "bs-roformer" for name in ("splifft", "neuraloperator", "hyperace-v1", "hyperace-v2", "conformer")}

# Options that no constructor of the package takes: they belong to the YAML alone.
YAML_ONLY = {
    "lossless-bs-roformer": {"zero_dc", "skip_connection", "use_pope"},
    "bs-roformer": {"skip_connection", "mlp_expansion_factor"},
    "audio-separator": set(),
    "msst": set(),
    "pymss-core": set(),
}


def use(package, references):
    """Binds this process to `package` and returns its modules as (bs, mel)."""
    installed, _ = PACKAGES[package]
    root = Path(references) / installed
    if not root.is_dir():
        raise SystemExit(f"{root} is missing: run tests/parity/run, which installs the references")
    sys.path.insert(0, str(root))
    if package in TRUNKS:
        sys.path.insert(0, str(Path(references) / TRUNKS[package]))
    if package == "pymss-core":
        base = "pymss_core.modules.bs_roformer."
        return (importlib.import_module(base + "bs_roformer"), importlib.import_module(base + "mel_band_roformer"))
    if package == "neuraloperator":
        # Spherical transforms, which the one-dimensional operator does not use.
        for name in ("torch_harmonics", "torch_harmonics.quadrature", "torch_harmonics.convolution"):
            stub = unittest.mock.MagicMock()
            stub.__path__, stub.__spec__ = [], importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = stub
    if package != "audio-separator":
        return (importlib.import_module("bs_roformer.bs_roformer"), importlib.import_module("bs_roformer.mel_band_roformer"))
    # Its package initialisers import ONNX and more; the two model files need none of it.
    for name in ("audio_separator", "audio_separator.separator"):
        stub = types.ModuleType(name)
        stub.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = stub
    base = "audio_separator.separator.uvr_lib_v5.roformer."
    return (importlib.import_module(base + "bs_roformer"), importlib.import_module(base + "mel_band_roformer"))


def build(case, modules):
    """The reference model of a case, with seeded weights rounded to the case's storage type, in evaluation mode."""
    # Hyper-connections draw their first stream from Python's generator.
    random.seed(case["seed"])
    torch.manual_seed(case["seed"])
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["model"].items()}
    bs, mel = modules
    if case["package"] == "siamese":
        model = SiameseModel(case["kind"], bs, mel, options)
    elif case["package"] == "conformer":
        model = ConformerModel(case["kind"], bs, mel, options)
    elif case["package"] in ("msst", *TRUNKS):
        model = MsstModel(case["kind"], bs, mel, options)
        heads = {"splifft": axial_masks, "neuraloperator": fno_masks, "hyperace-v1": hyperace_masks, "hyperace-v2": hyperace_masks}
        head = heads.get(case["package"])
        if head:
            model.mask_estimators = nn.ModuleList(head(case, model) for _ in model.mask_estimators)
    else:
        options = {k: v for k, v in options.items() if k not in YAML_ONLY[case["package"]]}
        model = (bs.BSRoformer if case["kind"] == "bs" else mel.MelBandRoformer)(**options)
    model.eval().requires_grad_(False)
    for module in model.modules():
        # The cache of angles only saves time; it fails on odd head sizes in the pinned version, and audio-separator
        # takes the pinned version's zero-filled buffer for a filled one.
        if hasattr(module, "cache_if_possible"):
            module.cache_if_possible = False
    draw_weights(model, case["seed"], case["weights"]["dtype"], case.get("stored_rotary", True))
    return model


def draw_weights(model, seed, dtype="f32", rotary=True):
    """Draws every tensor of the state, so that no option is left at a value at which it does nothing."""
    source = torch.Generator().manual_seed(seed)
    seen = set()
    for name, tensor in model.state_dict().items():
        if not torch.is_tensor(tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
            continue  # neuraloperator adds a description, batch norms a counter
        if tensor.data_ptr() in seen:  # rotary and PoPE modules are shared by the layers
            continue
        seen.add(tensor.data_ptr())
        noise = torch.randn(tensor.shape, generator=source, dtype=torch.cfloat if tensor.is_complex() else torch.float)
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "gamma":
            drawn = tensor + 0.3 * noise
        elif leaf == "temperature":
            drawn = tensor + 0.3 * noise
        elif name.endswith("rotary_embed.freqs") or leaf == "inv_freqs":
            drawn = tensor * (1 + 0.1 * noise.tanh()) if rotary else tensor
        elif name.endswith("pope_embed.bias"):
            # Also outside of [-2 pi, 0], where the reference clamps.
            drawn = -math.pi + (math.pi + 0.7) * (2 * torch.rand(tensor.shape, generator=source) - 1)
        elif leaf in ("static_alpha", "static_beta"):
            drawn = tensor + noise
        elif leaf == "dynamic_alpha_fn":
            drawn = noise / tensor.shape[-2] ** 0.5
        elif leaf == "dynamic_beta_fn":
            drawn = noise / tensor.shape[0] ** 0.5
        elif leaf in ("pre_branch_scale", "residual_scale", "h_post_scale"):
            drawn = 1 + 0.3 * noise
        elif leaf == "running_var":
            drawn = 0.5 + torch.rand(tensor.shape, generator=source)
        elif leaf == "global_proto":
            drawn = 6 * noise
        elif leaf == "weight" and tensor.ndim == 1:  # of batch and instance norms
            drawn = tensor + 0.3 * noise
        elif leaf == "bias" and ".segm." in name:
            # Of instance norms: where SiLU is nearly linear, because some sixty random layers would amplify rounding.
            drawn = 1 + 0.2 * noise
        elif leaf in ("bias", "running_mean") or leaf.startswith("linear_"):
            drawn = 0.2 * noise
        elif ".y_attn." in name or ".channel_mlp_skips." in name:
            drawn = tensor + 0.3 * noise
        elif tensor.is_complex():
            drawn = torch.complex(noise.real.round(decimals=2), noise.imag.round(decimals=2))
        elif leaf == "weight" and tensor.ndim in (3, 4):
            drawn = noise / tensor[0].numel() ** 0.5
        else:
            assert leaf == "weight" and tensor.ndim == 2, f"no rule for {name} of shape {tuple(tensor.shape)}"
            gain = 1.5 if ".to_qkv." in name or ".to_freqs." in name else 3.0 if ".ahc." in name else 1.0
            drawn = noise * gain / tensor.shape[1] ** 0.5
        if dtype != "f32" and not tensor.is_complex():
            drawn = drawn.to({"f16": torch.float16, "bf16": torch.bfloat16}[dtype]).float()
        tensor.copy_(drawn)


class Reading:
    """What a reference computed for one chunk: `spec` [s, f, t, 2], `mask` [n, (f s), t, 2], `output` [n, s, samples]."""

    def __init__(self, model, chunk):
        heads, spectra, masked = [], [], []
        hooks = [m.register_forward_hook(lambda _m, _i, out: heads.append(out)) for m in model.mask_estimators]
        stft, istft = torch.stft, torch.istft

        def recording_stft(*args, **kwargs):
            spectra.append(stft(*args, **kwargs))
            return spectra[-1]

        def recording_istft(spectrum, *args, **kwargs):
            masked.append(spectrum.clone())
            return istft(spectrum, *args, **kwargs)

        torch.stft, torch.istft = recording_stft, recording_istft
        try:
            with torch.inference_mode():
                output = model(chunk[None])
        finally:
            torch.stft, torch.istft = stft, istft
            for hook in hooks:
                hook.remove()
        self.output = output[0] if output.ndim == 4 else output
        channels = chunk.shape[0]
        spec = spectra[-1].reshape(channels, *spectra[-1].shape[-2:])
        self.spec = torch.view_as_real(spec)
        bins = slice(getattr(model, "min_freq", 0), getattr(model, "max_freq", spec.shape[1]))
        self.bins = (bins.start, bins.stop)
        mask = rearrange(torch.stack(heads, dim=1), "1 n t (f c) -> n f t c", c=2)
        if hasattr(model, "freq_indices"):
            mask = average_shared_bins(model, mask, channels)
        self.mask = mask.contiguous()
        # The mask read from the heads must be the one that the reference applied.
        applied = torch.view_as_complex(self.mask) * rearrange(spec[:, bins], "s f t -> (f s) t")
        applied = rearrange(applied, "n (f s) t -> (n s) f t", s=channels)
        seen = masked[-1][:, bins]
        if getattr(model, "zero_dc", False) and getattr(model, "applies_zero_dc", True) and bins.start == 0:
            applied[:, 0] = torch.where(seen[:, 0] == 0, 0, applied[:, 0])
        assert snr_db(torch.view_as_real(seen), torch.view_as_real(applied)) > 120, "the mask read is not the mask applied"


def average_shared_bins(model, mask, channels):
    """Sums the masks of the bands that share a bin and divides by their number; rows become (f s)."""
    rows = model.num_bands_per_freq.numel() * channels
    total = torch.zeros(mask.shape[0], rows, *mask.shape[2:], dtype=mask.dtype)
    total.index_add_(1, model.freq_indices, mask)
    return total / model.num_bands_per_freq.repeat_interleave(channels)[:, None, None]


def in_double(model):
    """The same model in double precision: what single precision costs the reference itself."""
    model = copy.deepcopy(model).double()
    length = model.stft_kwargs["win_length"]
    model.stft_window_fn = lambda device=None: torch.hann_window(length, dtype=torch.float64)
    return model


def snr_db(expected, found):
    """10 log10(signal / error) of all elements; infinite when equal."""
    expected, found = expected.double(), found.double()
    error = (expected - found).square().sum().item()
    return math.inf if error == 0 else 10 * math.log10(max(expected.square().sum().item(), 1e-300) / error)


def forget_angles(model):
    """Empties pymss-core's caches of rotary angles."""
    for module in model.modules():
        for cache in ("_pymss_cos_sin_cache", "cache"):
            if isinstance(getattr(module, cache, None), dict):
                getattr(module, cache).clear()


def deafest_tensor(model, chunk, mask, inert=None):
    """The stored tensor whose change shows least in the mask, and how loud that change is (dB below the mask).

    Names that end in one of `inert` are left out: the reference stores them and they do nothing.
    """
    source = torch.Generator().manual_seed(1)
    worst, seen = ("", math.inf), set()
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or tensor.data_ptr() in seen or inert and name.endswith(tuple(inert)):
            continue
        seen.add(tensor.data_ptr())
        kept = tensor.clone()
        tensor.mul_(1 + 0.5 * torch.randn(tensor.shape, generator=source).sign()).add_(0.05)
        forget_angles(model)
        change = -snr_db(mask, Reading(model, chunk).mask)
        tensor.copy_(kept)
        if change < worst[1]:
            worst = (name, change)
    return worst


class MsstTransformer(nn.Module):
    """Attention and feed-forward with plain residuals, named as in MSST checkpoints."""

    def __init__(self, depth, attention, feed_forward, norm, residual=True):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([attention(), feed_forward()]) for _ in range(depth))
        self.norm = norm() if norm else nn.Identity()
        # Without one from the second layer on: models/bs_roformer/bs_roformer_experimental.py of
        # ZFTurbo/Music-Source-Separation-Training (MIT), commit ccc011abf7f89dd7922bb2888d48493b575c0289.
        self.residual = residual

    def forward(self, x):
        for attention, feed_forward in self.layers:
            out = attention(x)[0]
            x = x + out if self.residual else out
            out = feed_forward(x)
            x = x + out if self.residual else out
        return self.norm(x)


class MsstModel(nn.Module):
    """MSST's variant of either architecture, for the options no PyPI package implements.

    The blocks are those of bs-roformer; the order in which MSST calls them is: per layer first the linear transformer
    over all (t k) positions, then, with `skip_connection`, the outputs of *all* earlier layers are added, then the time
    and the frequency transformer. BS-RoFormer asks its inverse STFT for the whole input length, Mel-Band RoFormer only
    with `match_input_audio_length`.
    """

    def __init__(self, kind, bs, mel, options):
        super().__init__()
        o = dict(linear_transformer_depth=0, mlp_expansion_factor=4, zero_dc=True, skip_connection=False, use_pope=False,
                 match_input_audio_length=False, heads=8, dim_head=64, stereo=False, num_stems=1)
        o.update(options)
        self.kind, self.zero_dc, self.skip_connection = kind, o["zero_dc"], o["skip_connection"]
        self.full_length = kind == "bs" or o["match_input_audio_length"]
        lib = bs if kind == "bs" else mel

        plain = {k: v for k, v in o.items() if k in ("dim", "stereo", "freqs_per_bands", "num_bands", "sample_rate",
                                                     "stft_n_fft", "stft_hop_length", "stft_win_length", "stft_normalized")}
        frame = (bs.BSRoformer if kind == "bs" else mel.MelBandRoformer)(**plain, depth=1, heads=1, dim_head=4, num_residual_streams=1)
        self.stft_kwargs, self.stft_window_fn, self.channels = frame.stft_kwargs, frame.stft_window_fn, frame.audio_channels
        self.band_split = frame.band_split
        if kind == "bs":
            self.final_norm = frame.final_norm
        else:
            for name in ("freq_indices", "num_bands_per_freq"):
                self.register_buffer(name, getattr(frame, name), persistent=False)

        dim, heads, dim_head = o["dim"], o["heads"], o["dim_head"]
        norm = None if kind == "bs" else lambda: lib.RMSNorm(dim)

        def axis():
            position = lib.PoPE(dim=dim_head, heads=heads) if o["use_pope"] else lib.RotaryEmbedding(dim=dim_head)
            key = "pope_embed" if o["use_pope"] else "rotary_embed"
            return lambda: lib.Attention(dim=dim, heads=heads, dim_head=dim_head, **{key: position})

        time, freq = axis(), axis()
        linear = lambda: mel.LinearAttention(dim=dim, heads=heads, dim_head=dim_head, flash=True)
        feed_forward = lambda: lib.FeedForward(dim=dim)
        self.layers = nn.ModuleList()
        for index in range(o["depth"]):
            residual = index == 0 or not o.get("experimental_residuals", False)
            layer = [MsstTransformer(o["linear_transformer_depth"], linear, feed_forward, norm)] if o["linear_transformer_depth"] else []
            layer.append(MsstTransformer(o["time_transformer_depth"], time, feed_forward, norm, residual))
            layer.append(MsstTransformer(o["freq_transformer_depth"], freq, feed_forward, norm, residual))
            self.layers.append(nn.ModuleList(layer))
        self.mask_estimators = nn.ModuleList(
            lib.MaskEstimator(dim=dim, dim_inputs=self.band_split.dim_inputs, depth=o["mask_estimator_depth"],
                              mlp_expansion_factor=o["mlp_expansion_factor"]) for _ in range(o["num_stems"]))

    def forward(self, audio):
        b, s, samples = audio.shape
        window = self.stft_window_fn(device=audio.device)
        spec = torch.stft(audio.reshape(b * s, samples), **self.stft_kwargs, window=window, return_complex=True)
        rows = rearrange(spec, "(b s) f t -> b (f s) t", s=s)
        taken = rows if self.kind == "bs" else rows[:, self.freq_indices]
        x = self.band_split(rearrange(torch.view_as_real(taken), "b f t c -> b t (f c)"))

        x = self.trunk(x)
        mask = torch.stack([head(x) for head in self.mask_estimators], dim=1)
        mask = rearrange(mask, "b n t (f c) -> b n f t c", c=2)
        if self.kind == "mel":
            mask = torch.stack([average_shared_bins(self, m, s) for m in mask])
        out = torch.view_as_complex(mask.contiguous()) * rows[:, None]
        out = rearrange(out, "b n (f s) t -> (b n s) f t", s=s)
        if self.zero_dc:
            out[:, 0] = 0
        audio = torch.istft(out, **self.stft_kwargs, window=window, length=samples if self.full_length else None)
        return rearrange(audio, "(b n s) t -> b n s t", b=b, s=s)

    def trunk(self, x):
        b, t, k, _ = x.shape
        earlier = []
        for layer in self.layers:
            *linear, time, freq = layer
            if linear:
                x = rearrange(linear[0](rearrange(x, "b t k d -> b (t k) d")), "b (t k) d -> b t k d", t=t)
            if self.skip_connection:
                x = x + sum(earlier) if earlier else x
            x = rearrange(time(rearrange(x, "b t k d -> (b k) t d")), "(b k) t d -> b t k d", b=b)
            x = rearrange(freq(rearrange(x, "b t k d -> (b t) k d")), "(b t) k d -> b t k d", b=b)
            earlier.append(x)
        return self.final_norm(x) if self.kind == "bs" else x


class SiameseTransformer(nn.Module):
    """Two residual streams: x is normalised after each step, y before."""

    def __init__(self, lib, depth, dim, attention, start):
        super().__init__()
        norms = lambda: nn.ModuleList(lib.RMSNorm(dim) for _ in range(depth))
        self.layers = nn.ModuleList(nn.ModuleList([attention(), lib.FeedForward(dim=dim)]) for _ in range(depth))
        self.ln_y_attn, self.ln_x_attn, self.ln_y_mlp, self.ln_x_mlp = norms(), norms(), norms(), norms()
        self.y_attn = nn.ParameterList(nn.Parameter(torch.ones(dim)) for _ in range(depth))
        self.start = start

    def forward(self, x, y):
        for i, (attention, feed_forward) in enumerate(self.layers):
            scale = 1 + 1 / math.sqrt(self.start + i)
            out, _ = attention(x * self.y_attn[i] + self.ln_y_attn[i](y))
            y = y + out
            x = self.ln_x_attn[i](x + out * scale)
            out = feed_forward(x + self.ln_y_mlp[i](y))
            y = y + out
            x = self.ln_x_mlp[i](x + out * scale)
        return x, y


class SiameseModel(MsstModel):
    """MsstModel with a trunk of SiameseTransformers; blocks are counted from 1 over all of them."""

    def __init__(self, kind, bs, mel, options):
        super().__init__(kind, bs, mel, options)
        dim, heads, dim_head = (options[k] for k in ("dim", "heads", "dim_head"))
        attention = lambda rotary: lambda: bs.Attention(dim=dim, heads=heads, dim_head=dim_head, rotary_embed=rotary)
        time, freq = attention(bs.RotaryEmbedding(dim=dim_head)), attention(bs.RotaryEmbedding(dim=dim_head))
        depths, number, layers = (options["time_transformer_depth"], options["freq_transformer_depth"]), 1, []
        for _ in range(options["depth"]):
            layer = []
            for depth, axis in zip(depths, (time, freq)):
                layer.append(SiameseTransformer(bs, depth, dim, axis, number))
                number += depth
            layers.append(nn.ModuleList(layer))
        self.layers = nn.ModuleList(layers)

    def trunk(self, x):
        b, y = x.shape[0], x
        for time, freq in self.layers:
            x, y = (rearrange(v, "b t k d -> (b k) t d") for v in (x, y))
            x, y = (rearrange(v, "(b k) t d -> b t k d", b=b) for v in time(x, y))
            x, y = (rearrange(v, "b t k d -> (b t) k d") for v in (x, y))
            x, y = (rearrange(v, "(b t) k d -> b t k d", b=b) for v in freq(x, y))
        return x + self.final_norm(y)


def axial_masks(case, model):
    """splifft's head of BS-RoFormer Large-Inst v2. Its rotary tables have a fixed length."""
    from splifft.models.bs_roformer import AxialRefinerLargeV2MaskEstimator

    o = case["model"]
    frames = case["samples"] // o["stft_hop_length"] + 1
    return AxialRefinerLargeV2MaskEstimator(
        dim=o["dim"], dim_inputs=model.band_split.dim_inputs, mlp_depth=o["mask_estimator_depth"],
        mlp_expansion_factor=o["mlp_expansion_factor"], axial_refiner_depth=case["head_layers"], t_frames=frames,
        num_bands=len(model.band_split.dim_inputs), rotary_embed_dtype=None)


class FnoMasks(nn.Module):
    """One Fourier neural operator a band, and a gated linear unit over its channels."""

    def __init__(self, dim, dim_inputs):
        super().__init__()
        from neuralop.models import FNO1d

        self.to_freqs = nn.ModuleList(
            nn.Sequential(FNO1d(n_modes_height=64, hidden_channels=dim, in_channels=dim, out_channels=2 * features,
                                lifting_channels=dim, projection_channels=dim, n_layers=3, separable=True), nn.GLU(dim=-2))
            for features in dim_inputs)

    def forward(self, x):
        bands = [fno(rearrange(band, "b t d -> b d t")) for band, fno in zip(x.unbind(dim=-2), self.to_freqs)]
        return torch.cat([rearrange(band, "b d t -> b t d") for band in bands], dim=-1)


def fno_masks(case, model):
    return FnoMasks(case["model"]["dim"], model.band_split.dim_inputs)


class ConformerModel(MsstModel):
    """MsstModel with Conformers in place of transformers; no norm follows them, in Mel-Band models neither."""

    def __init__(self, kind, bs, mel, options):
        from pymss_core.modules.bs_roformer.common import RotaryEmbedding
        from pymss_core.modules.bs_roformer.conformer import Conformer

        plain = {key.replace("_conformer_", "_transformer_"): value for key, value in options.items()}
        super().__init__(kind, bs, mel, plain)
        lib = bs if kind == "bs" else mel
        dim, heads, dim_head = (options[k] for k in ("dim", "heads", "dim_head"))
        sizes = {k: options[k] for k in ("ff_mult", "conv_expansion_factor", "conv_kernel_size") if k in options}
        rotary = [RotaryEmbedding(dim=dim_head) for _ in range(2)]
        linear = lambda: mel.LinearAttention(dim=dim, heads=heads, dim_head=dim_head, flash=True)
        layers = []
        for _ in range(options["depth"]):
            depth = options.get("linear_conformer_depth", 0)
            layer = [MsstTransformer(depth, linear, lambda: lib.FeedForward(dim=dim), None)] if depth else []
            for axis, embedding in zip(("time", "freq"), rotary):
                layer.append(Conformer(dim=dim, depth=options[f"{axis}_conformer_depth"], heads=heads, dim_head=dim_head,
                                       rotary_embed=embedding, norm_output=False, **sizes))
            layers.append(nn.ModuleList(layer))
        self.layers = nn.ModuleList(layers)


class HyperAceMasks(nn.Module):
    """The usual MLPs plus the head's masks."""

    def __init__(self, masks, segm):
        super().__init__()
        self.to_freqs, self.segm = masks.to_freqs, segm

    def forward(self, x):
        segm = rearrange(self.segm(rearrange(x, "b t k d -> b d t k")), "b c t f -> b t (f c)")
        return torch.cat([mlp(band) for band, mlp in zip(x.unbind(dim=-2), self.to_freqs)], dim=-1) + segm


def hyperace_masks(case, model):
    """The head as its package builds it. With `head` in the case it gets fewer channels: the packages fix those, and a committed
    file must be small."""
    if case["package"] == "hyperace-v1":
        from splifft.models.utils import hyperace as package

        build = package.SegmModelHyperAceV1
    else:
        from pymss_core.modules.bs_roformer import hyperace_segm as package

        build = package.SegmModel
    o, sizes, features = case["model"], case.get("head"), model.band_split.dim_inputs
    out = dict(out_channels=2 * model.channels, target_bins=sum(features) // (2 * model.channels))
    masks = model.mask_estimators[0].__class__(dim=o["dim"], dim_inputs=features, depth=o["mask_estimator_depth"],
                                               mlp_expansion_factor=o["mlp_expansion_factor"])
    base = dict(base_channels=sizes["stem"], base_depth=sizes["depth"]) if sizes else {}
    full = build(in_bands=len(features), in_dim=o["dim"], out_bins=out["target_bins"], out_channels=out["out_channels"], **base)
    if not sizes:
        return HyperAceMasks(masks, full)
    before = sizes["stem"]
    for name, after in zip(("p2", "p3", "p4", "p5"), sizes["channels"]):
        down, stage = getattr(full.backbone, name)
        stride = (2, 2) if o.get("hyperace_band_strides") else down.dwconv.stride
        setattr(full.backbone, name, nn.Sequential(package.DSConv(before, after, k=3, s=stride, p=1),
                                                   package.DS_C3k2(after, after, n=len(stage.m.m))))
        before = after
    channels, ace = sizes["channels"], full.hyperace
    full.hyperace = type(ace)(channels, channels[2], sizes["edges"], 8, k=len(ace.high_order_branch), l=len(ace.low_order_branch))
    full.decoder = type(full.decoder)(channels, channels[2], channels)
    if case["package"] == "hyperace-v2":
        out["in_bands"] = len(features)
    full.upsample_head = type(full.upsample_head)(in_channels=channels[0], **out)
    return HyperAceMasks(masks, full)
