"""The cases: which reference, which options, which storage. Names state what the case is there for."""

import random

STEMS = ["drums", "bass", "other", "vocals"]
DEFAULT_BANDS = [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]

# Tiny settings that the small cases start from: 13 bins, 8 frames.
BS = dict(dim=6, depth=1, stereo=True, num_stems=1, time_transformer_depth=1, freq_transformer_depth=1, heads=2, dim_head=4,
          freqs_per_bands=[2, 4, 7], stft_n_fft=24, stft_hop_length=10, stft_win_length=24, stft_normalized=False,
          mask_estimator_depth=2)
MEL = dict(dim=4, depth=1, stereo=True, num_stems=1, time_transformer_depth=1, freq_transformer_depth=1, heads=2, dim_head=4,
           num_bands=3, sample_rate=44100, stft_n_fft=24, stft_hop_length=10, stft_win_length=24, stft_normalized=False,
           mask_estimator_depth=1)

# At the first connection the streams are still copies: whatever mixes them changes nothing.
FIRST = ["layers.0.0.layers.0.0." + k for k in ("static_alpha", "dynamic_alpha_fn", "pre_branch_scale", "residual_scale")]


def case(name, package, kind, options=None, *, samples=70, dtype="f16", format="safetensors", wrap="", prefix="", bands="list",
         tolerance=90, check="all", **more):
    """One case. `wrap`: the key that holds the state in a .ckpt; `bands`: how the YAML writes sequences.

    `check`: "noise" measures what single precision costs the reference, "all" also that every tensor matters.
    """
    model = dict(BS if kind == "bs" else MEL)
    if package == "lossless-bs-roformer" and kind == "bs" or package in ("msst", "splifft", "neuraloperator", "siamese", "pymss-core", "hyperace-v1", "hyperace-v2", "conformer") or package == "audio-separator" and kind == "bs":
        model["mlp_expansion_factor"] = 1
    if kind == "mel" and package != "audio-separator":
        model["linear_transformer_depth"] = 0
    if package == "bs-roformer":
        model.update(num_residual_streams=1, stereo=False)
    if package in ("msst", "splifft", "neuraloperator", "siamese", "hyperace-v1", "hyperace-v2"):
        model["zero_dc"] = False
    if package == "conformer":  # zero_dc is on unless the YAML says otherwise
        del model["linear_transformer_depth" if kind == "mel" else "depth"]
        model = {key.replace("_transformer_", "_conformer_"): value for key, value in model.items()} | dict(depth=1)
    model.update(options or {})
    seed = int.from_bytes(name.encode()[-4:], "little") % 100_000 + len(name)
    return dict(name=name, package=package, kind=kind, model=model, samples=samples, seed=seed, tolerance_db=tolerance,
                weights=dict(dtype=dtype, format=format, wrap=wrap, prefix=prefix), bands=bands, check=check, **more)


# Sizes of HyperACE's head, which its packages fix: stem and stage channels, blocks a stage, hyperedges. Stages halve the time axis,
# and version 2 halves the bands twice.
HYPERACE = dict(freqs_per_bands=[1, 2, 2, 3, 5])
HEAD = dict(stem=3, channels=[16, 10, 16, 12], depth=1, edges=3)


def fixtures():
    """The committed goldens: every option, as small as it can be."""
    seed, lucid, msst = "lossless-bs-roformer", "bs-roformer", "msst"
    ckpt = dict(format="ckpt")
    return [
        case("bs_seed_stereo_four_stems", seed, "bs", dict(num_stems=4, freqs_per_bands=[4, 9]), **ckpt, bands="tuple"),
        case("bs_seed_mono", seed, "bs", dict(stereo=False, freqs_per_bands=[4, 9]), dtype="f32", **ckpt, wrap="state_dict", bands="flow"),
        case("bs_seed_transformer_depths", seed, "bs", dict(time_transformer_depth=2, freq_transformer_depth=3, stereo=False, freqs_per_bands=[4, 9]), prefix="module.", **ckpt),
        case("bs_seed_mask_depth_1", seed, "bs", dict(mask_estimator_depth=1, freqs_per_bands=[4, 9]), dtype="bf16", **ckpt, wrap="model", bands="tuple"),
        case("bs_seed_mask_depth_3", seed, "bs", dict(mask_estimator_depth=3, freqs_per_bands=[4, 9], stereo=False), **ckpt, wrap="ema", prefix="model."),
        case("bs_seed_mlp_expansion", seed, "bs", dict(mlp_expansion_factor=2, freqs_per_bands=[4, 9]), dtype="bf16"),
        case("bs_seed_odd_head", seed, "bs", dict(dim_head=5, heads=3, dim=9)),
        case("bs_seed_short_window", seed, "bs", dict(stft_n_fft=30, stft_win_length=21, freqs_per_bands=[6, 10])),
        case("bs_seed_normalized", seed, "bs", dict(stft_normalized=True), bands="flow_tuple"),
        case("bs_seed_uneven_hop", seed, "bs", dict(stft_hop_length=7, num_stems=2), samples=67),
        case("bs_seed_odd_n_fft", seed, "bs", dict(stft_n_fft=25, stft_win_length=25), samples=71),
        case("bs_separator_linear", "audio-separator", "bs", dict(linear_transformer_depth=2, freqs_per_bands=[4, 9], stereo=False), dtype="bf16", **ckpt, wrap="state"),
        case("bs_msst_skip_connection", msst, "bs", dict(skip_connection=True, depth=3)),
        case("bs_msst_zero_dc", msst, "bs", dict(zero_dc=True, num_stems=2), samples=67),
        case("bs_lucid_value_residual", lucid, "bs", dict(depth=2, time_transformer_depth=2, freqs_per_bands=[4, 9])),
        case("bs_lucid_streams_2", lucid, "bs", dict(num_residual_streams=2, depth=2)),
        case("bs_lucid_streams_3", lucid, "bs", dict(num_residual_streams=3, zero_dc=True)),
        case("bs_lucid_streams_4", lucid, "bs", dict(num_residual_streams=4, mc_hyper_conn_sinkhorn_iters=5)),
        case("bs_lucid_streams_fracs", lucid, "bs", dict(num_residual_streams=2, num_residual_fracs=2, freqs_per_bands=[4, 9])),
        case("bs_lucid_fracs_alone", lucid, "bs", dict(num_residual_streams=1, num_residual_fracs=2, freqs_per_bands=[4, 9]),
             inert=["residual_scale"]),
        case("bs_lucid_freq_range", lucid, "bs", dict(stereo=True, freq_range=[2, 11], freqs_per_bands=[3, 6], zero_dc=True)),
        case("bs_lucid_pope", lucid, "bs", dict(use_pope=True, num_residual_streams=2)),
        case("mel_seed_stereo", seed, "mel", dict(num_stems=2, num_bands=2)),
        case("mel_seed_mono", seed, "mel", dict(stereo=False, num_bands=4, sample_rate=48000), bands="tuple"),
        case("mel_seed_linear", seed, "mel", dict(linear_transformer_depth=1, mask_estimator_depth=2, stereo=False)),
        case("mel_seed_match_length", seed, "mel", dict(match_input_audio_length=True), samples=67),
        case("mel_separator", "audio-separator", "mel", dict(time_transformer_depth=2), dtype="bf16"),
        case("mel_msst_skip_connection", msst, "mel", dict(skip_connection=True, depth=3, stereo=False)),
        case("mel_msst_zero_dc_expansion", msst, "mel", dict(zero_dc=True, mlp_expansion_factor=2, use_pope=True)),
        case("mel_lucid_value_residual", lucid, "mel", dict(add_value_residual=True, depth=2)),
        case("mel_lucid_everything", lucid, "mel", dict(
            add_value_residual=True, linear_transformer_depth=1, depth=2, num_residual_streams=4, zero_dc=True), inert=FIRST),
        case("mel_lucid_fracs", lucid, "mel", dict(
            add_value_residual=True, linear_transformer_depth=1, dim=8, num_residual_streams=2, num_residual_fracs=2), inert=FIRST),
        case("mel_lucid_pope", lucid, "mel", dict(use_pope=True, num_residual_streams=2, add_value_residual=True)),
        # Architectures of single public checkpoints: BS-RoFormer SW as first published, Large-Inst v2, FNO, EXP-SiameseRoformer,
        # and MSST's main line between 15 February and 27 March 2025.
        case("bs_pymss_attention_biases", "pymss-core", "bs", dict(use_shared_bias=True, depth=2, freqs_per_bands=[4, 9]), check="noise"),  # it caches weights
        case("bs_splifft_axial_masks", "splifft", "bs", dict(stereo=False, freqs_per_bands=[4, 9], num_stems=2, dim=4), head_layers=1, stored_rotary=False),
        case("bs_neuralop_fno_masks", "neuraloperator", "bs", dict(stereo=False, freqs_per_bands=[4, 9], dim=4), check="none"),
        case("bs_neuralop_fno_masks_long", "neuraloperator", "bs", dict(freqs_per_bands=[4, 9], dim=3, num_stems=2), samples=900, check="none"),
        case("bs_siamese", "siamese", "bs", dict(depth=2, time_transformer_depth=2, freqs_per_bands=[4, 9])),
        case("bs_msst_experimental_residuals", msst, "bs", dict(depth=3, experimental_residuals=True)),
        case("mel_msst_experimental_residuals", msst, "mel", dict(depth=2, experimental_residuals=True, stereo=False)),
        # HyperACE. Frames shrink to a 32nd, so that a few more are needed; 91 and 86 divide by no power of two.
        case("bs_splifft_hyperace_v1", "hyperace-v1", "bs", HYPERACE, samples=905, head=HEAD),
        case("bs_splifft_hyperace_v1_mono", "hyperace-v1", "bs", HYPERACE | dict(stereo=False, num_stems=2), samples=858, head=HEAD),
        case("bs_webui_hyperace_v1_band_strides", "hyperace-v1", "bs", HYPERACE | dict(freqs_per_bands=[1] * 10 + [3], hyperace_band_strides=True), samples=1340, head=HEAD),
        case("bs_pymss_hyperace_v2", "hyperace-v2", "bs", HYPERACE | dict(num_stems=2), samples=905, head=HEAD),
        case("bs_pymss_hyperace_v2_mono", "hyperace-v2", "bs", HYPERACE | dict(stereo=False), samples=858, head=HEAD, **ckpt),
        case("mel_pymss_hyperace_v2", "hyperace-v2", "mel", dict(num_bands=4, mask_estimator_depth=1), samples=905, head=HEAD),
        # Conformers.
        case("bs_pymss_conformer", "conformer", "bs", dict(freqs_per_bands=[4, 9], depth=2, num_stems=2, conv_kernel_size=5), **ckpt),
        case("bs_pymss_conformer_depths", "conformer", "bs", dict(freqs_per_bands=[2, 4, 7], stereo=False, time_conformer_depth=2, freq_conformer_depth=3, ff_mult=2,
             conv_expansion_factor=3, conv_kernel_size=3, skip_connection=True, zero_dc=False, depth=2), samples=67),
        case("bs_pymss_conformer_linear", "conformer", "bs", dict(freqs_per_bands=[4, 9], linear_conformer_depth=1, ff_mult=2, conv_kernel_size=31), dtype="bf16"),
        case("mel_pymss_conformer", "conformer", "mel", dict(num_stems=2, depth=2, conv_kernel_size=7), wrap="state_dict", **ckpt),
        case("mel_pymss_conformer_mono", "conformer", "mel", dict(stereo=False, zero_dc=False, skip_connection=True, depth=2, match_input_audio_length=True,
             conv_expansion_factor=1, conv_kernel_size=3), samples=67, dtype="f32"),
        # Songs. A chunk of 80: border 0 (no overlap), 40 (two chunks over each sample) and 60 (four).
        case("bs_msst_demix", msst, "bs", samples=80, demix=songs(80), chunk_key="inference"),
        case("mel_seed_demix", seed, "mel", dict(stereo=False), samples=80, demix=songs(80, stereo=False)),
    ]


def songs(chunk, stereo=True):
    """Lengths around the borders for one, two and four chunks over each sample, and the two ways of averaging passes.

    None leaves a last chunk of fewer samples than a fade: nullsum does not run such chunks, the trainer does.
    """
    out = []
    for overlap, lengths in {
        1: [chunk // 10 + 1, chunk // 2, chunk, 2 * chunk + 17],
        2: [chunk // 3, chunk, chunk + 1, 2 * chunk + chunk // 2 + 1],
        4: [chunk - 1, chunk + chunk // 2, chunk + chunk // 2 + 1, 2 * chunk + 37],
    }.items():
        out += [dict(overlap=overlap, length=n) for n in lengths]
    if stereo:
        out.append(dict(overlap=2, length=chunk + 71, tta=True))
    out.append(dict(overlap=2, length=chunk + 71, shifts=3))
    return out


def full(heavy=False):
    """Real sizes: made on demand, too large to commit."""
    seed, lucid = "lossless-bs-roformer", "bs-roformer"
    big = dict(dim=384, depth=8, stereo=True, num_stems=4, time_transformer_depth=1, freq_transformer_depth=1, heads=8, dim_head=64,
               freqs_per_bands=DEFAULT_BANDS, stft_n_fft=2048, stft_hop_length=441, stft_win_length=2048, mlp_expansion_factor=2)
    mel = dict(dim=128, depth=3, num_bands=60, heads=4, dim_head=32, stft_n_fft=2048, stft_hop_length=441, stft_win_length=2048, num_stems=2)
    common = dict(dtype="f32", format="ckpt", tolerance=80, check="none")
    out = [
        case("full_bs_default_2s", seed, "bs", big, samples=88200, bands="tuple", **common),
        case("full_mel_mid", seed, "mel", mel, samples=44100, **common),
        case("full_mel_mid_streams", lucid, "mel", dict(mel, num_residual_streams=4, linear_transformer_depth=1), samples=44100, **common),
        case("full_bs_song", seed, "bs", dict(big, dim=64, depth=2, num_stems=2), samples=44100, demix=[
            dict(overlap=2, length=123_457), dict(overlap=4, length=100_001)], **common),
    ]
    # The public files have depth 12.
    wide = dict(big, dim=256, depth=1, num_stems=1, mlp_expansion_factor=4)
    conformer = {k.replace("_transformer_", "_conformer_"): v for k, v in wide.items()}
    out += [
        case("full_bs_hyperace_v1", "hyperace-v1", "bs", wide, samples=88200, **common),
        case("full_bs_hyperace_v2", "hyperace-v2", "bs", wide, samples=88200, **common),
        case("full_bs_conformer", "conformer", "bs", dict(conformer, conv_kernel_size=31), samples=44100, **common),
    ]
    if heavy:
        out.append(case("full_bs_default_8s", seed, "bs", big, samples=352_800, **common))
    return out


def drawn(count, seed=0):
    """`count` random configurations over all options of all references."""
    return [draw(random.Random(f"{seed}/{i}"), f"random_{seed}_{i:03}") for i in range(count)]


def draw(r, name):
    package = r.choice(["lossless-bs-roformer", "bs-roformer", "bs-roformer", "msst", "msst", "audio-separator"])
    kind = r.choice(["bs", "mel"])
    hyper = package == "bs-roformer"
    fracs = r.choice([1, 1, 2]) if hyper else 1
    n_fft = r.choice([60, 64, 96, 128, 250, 256, 255]) if kind == "bs" else r.choice([128, 200, 256])
    short = r.random() < 0.3 and package != "bs-roformer" or r.random() < 0.2
    o = dict(dim=fracs * r.randint(4, 20), depth=r.randint(1, 3), stereo=r.random() < 0.6, num_stems=r.randint(1, 4),
             time_transformer_depth=r.randint(1, 2), freq_transformer_depth=r.randint(1, 2), heads=r.randint(1, 4),
             dim_head=r.choice([4, 5, 8, 16]), stft_n_fft=n_fft, stft_win_length=r.randint(2 * n_fft // 3, n_fft) if short else n_fft,
             stft_hop_length=r.randint(n_fft // 8, n_fft // 3), stft_normalized=r.random() < 0.3, mask_estimator_depth=r.randint(1, 3))
    bins = n_fft // 2 + 1
    if kind == "bs":
        if hyper and r.random() < 0.4:
            low, high = r.randint(0, 3), r.randint(bins // 2, bins)
            o["freq_range"] = r.choice([[low, high], [low, -1], [-1, high]])
            bins = (high if o["freq_range"][1] != -1 else bins) - (low if o["freq_range"][0] != -1 else 0)
        cuts = sorted(r.sample(range(1, bins), r.randint(1, 7)))
        o["freqs_per_bands"] = [b - a for a, b in zip([0, *cuts], [*cuts, bins])]
    else:
        o.update(num_bands=r.randint(3, 8), sample_rate=r.choice([16000, 44100, 48000]), match_input_audio_length=r.random() < 0.5)
    if package == "msst":
        o.update(linear_transformer_depth=r.randint(0, 2), mlp_expansion_factor=r.randint(1, 4), zero_dc=r.random() < 0.5,
                 skip_connection=r.random() < 0.5, use_pope=r.random() < 0.3)
    elif package == "audio-separator" and kind == "bs":
        o.update(linear_transformer_depth=r.randint(0, 2), mlp_expansion_factor=r.randint(1, 4))
    elif hyper:
        o.update(num_residual_streams=r.randint(1, 5), num_residual_fracs=fracs, use_pope=r.random() < 0.3, zero_dc=r.random() < 0.5)
        if kind == "bs":
            o["mc_hyper_conn_sinkhorn_iters"] = r.randint(1, 6)
        else:
            o.update(add_value_residual=r.random() < 0.5, linear_transformer_depth=r.randint(0, 2))
    elif kind == "mel" and package != "audio-separator":
        o["linear_transformer_depth"] = r.randint(0, 2)
    return case(name, package, kind, o, samples=r.randint(4 * n_fft, 9 * n_fft), check="noise",
                dtype=r.choice(["f32", "f16", "bf16"]), format=r.choice(["ckpt", "safetensors"]),
                wrap=r.choice(["", "state_dict", "state", "model", "ema"]), prefix=r.choice(["", "module.", "model."]),
                bands=r.choice(["list", "flow", "tuple", "flow_tuple"]), stored_rotary=r.random() < 0.8)
