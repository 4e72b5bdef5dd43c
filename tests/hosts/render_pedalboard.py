"""Renders music through the bundled VST3 in pedalboard, which compensates latency as a DAW does.

Usage: render_pedalboard.py BUNDLE SONG STEM...
STEM is a file that `nullsum-cli` wrote from the same seconds of SONG with the same model, named after its stem.
"""

import pathlib
import sys

import numpy as np
import pedalboard

import music

SECONDS = 15
# The plugin separates in windows of its own plan, the command line in chunks of the model's: the stems are estimates
# of the same thing, not the same numbers.
AGREE_DB = 10.0


def load(bundle):
    return pedalboard.load_plugin(bundle, plugin_name="Nullsum")


def main(bundle, song, stems):
    names = pedalboard.VST3Plugin.get_plugin_names_for_file(bundle)
    music.claim(names == ["Nullsum", "Nullsum Multi"], f"classes {names}")
    mixture = music.read(song, SECONDS)

    start = mixture[:, : 4 * music.RATE]
    for rate in (44100, 48000, 96000):
        for block in (64, 441, 8192):
            output = load(bundle)(start, rate, buffer_size=block, reset=True)
            music.claim(
                output.shape == start.shape and np.array_equal(output, start),
                f"at unity, {rate} Hz, blocks of {block}: the music itself, aligned",
            )
    mono = start[:1]
    music.claim(np.array_equal(load(bundle)(mono, 44100, reset=True), mono), "at unity, mono: the music itself")

    total = np.zeros(mixture.shape)
    for path in map(pathlib.Path, stems):
        name = path.stem.split("_")[-1].lower()
        plugin = load(bundle)
        setattr(plugin, f"{name}_solo", True)
        output = plugin(mixture, music.RATE, buffer_size=512, reset=True)
        again = plugin(mixture, music.RATE, buffer_size=512, reset=True)
        music.claim(np.array_equal(output, again), f"{name} soloed: rendering twice gives the same bits")
        total += output
        reference = music.read(path, SECONDS)
        samples = min(reference.shape[1], output.shape[1])
        snr = music.snr_db(reference[:, :samples], output[:, :samples])
        level = music.level_db(reference)
        # A trace of what is not in the music is no stem: windows that are cut elsewhere hear another.
        quiet = level < music.level_db(mixture) - 20
        music.claim(
            quiet or snr > AGREE_DB,
            f"{name} soloed: {snr:.1f} dB SNR to the command line's stem (which lies at {level:.1f} dBFS)",
        )
    if stems:
        peak = 20 * np.log10(np.max(np.abs(total - mixture)) + 1e-30)
        music.claim(peak < -130, f"all solos add up to the music: {peak:.1f} dBFS left")


main(sys.argv[1], sys.argv[2], sys.argv[3:])
