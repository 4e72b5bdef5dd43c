"""The reference models: where they come from, how their weights are drawn, what is read out of them.

Two PyPI packages install a module of the same name, so a process binds itself to one package with `use` and keeps it.
Axis letters: b batch, n stem, s audio channel, f frequency bin, t frame, c complex, k band, d feature.
"""

import copy
import importlib
import math
import sys
import types
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
}

# Options that no constructor of the package takes: they belong to the YAML alone.
YAML_ONLY = {
    "lossless-bs-roformer": {"zero_dc", "skip_connection", "use_pope"},
    "bs-roformer": {"skip_connection", "mlp_expansion_factor"},
    "audio-separator": set(),
    "msst": set(),
}


def use(package, references):
    """Binds this process to `package` and returns its modules as (bs, mel)."""
    installed, _ = PACKAGES[package]
    root = Path(references) / installed
    if not root.is_dir():
        raise SystemExit(f"{root} is missing: run tests/parity/run, which installs the references")
    sys.path.insert(0, str(root))
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
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["model"].items()}
    bs, mel = modules
    if case["package"] == "msst":
        model = MsstModel(case["kind"], bs, mel, options)
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
        if tensor.data_ptr() in seen:  # rotary and PoPE modules are shared by the layers
            continue
        seen.add(tensor.data_ptr())
        noise = torch.randn(tensor.shape, generator=source)
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
        elif leaf == "bias":
            drawn = 0.2 * noise
        else:
            assert leaf == "weight" and tensor.ndim == 2, f"no rule for {name} of shape {tuple(tensor.shape)}"
            gain = 1.5 if ".to_qkv." in name or ".to_freqs." in name else 1.0
            drawn = noise * gain / tensor.shape[1] ** 0.5
        if dtype != "f32":
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


def deafest_tensor(model, chunk, mask, inert=None):
    """The stored tensor whose change shows least in the mask, and how loud that change is (dB below the mask).

    Names that end in one of `inert` are left out: the reference stores them and they do nothing.
    """
    source = torch.Generator().manual_seed(1)
    worst, seen = ("", math.inf), set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen or inert and name.endswith(tuple(inert)):
            continue
        seen.add(tensor.data_ptr())
        kept = tensor.clone()
        tensor.mul_(1 + 0.5 * torch.randn(tensor.shape, generator=source).sign()).add_(0.05)
        change = -snr_db(mask, Reading(model, chunk).mask)
        tensor.copy_(kept)
        if change < worst[1]:
            worst = (name, change)
    return worst


class MsstTransformer(nn.Module):
    """Attention and feed-forward with plain residuals, named as in MSST checkpoints."""

    def __init__(self, depth, attention, feed_forward, norm):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([attention(), feed_forward()]) for _ in range(depth))
        self.norm = norm() if norm else nn.Identity()

    def forward(self, x):
        for attention, feed_forward in self.layers:
            x = x + attention(x)[0]
            x = x + feed_forward(x)
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
        for _ in range(o["depth"]):
            layer = [MsstTransformer(o["linear_transformer_depth"], linear, feed_forward, norm)] if o["linear_transformer_depth"] else []
            layer.append(MsstTransformer(o["time_transformer_depth"], time, feed_forward, norm))
            layer.append(MsstTransformer(o["freq_transformer_depth"], freq, feed_forward, norm))
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
        if self.kind == "bs":
            x = self.final_norm(x)

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
