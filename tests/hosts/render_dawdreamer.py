"""Renders music through `Nullsum Multi` in DawDreamer: every bus is heard, and the buses sum to the main one.

Usage: render_dawdreamer.py BUNDLE SONG

DawDreamer loads the first class of a library. The bundle is therefore copied with a `moduleinfo.json` that names the
other class alone.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import dawdreamer
import numpy as np

import music

SECONDS = 10
ROOM = 8
BLOCK = 512
STEMS = ["Vocals", "Drums", "Bass", "Other", "Guitar", "Piano"]
MULTI = {
    "CID": b"NullsumMulti0001".hex().upper(),
    "Category": "Audio Module Class",
    "Name": "Nullsum Multi",
    "Vendor": "Nullsum",
    "Version": "0.1.0",
    "SDKVersion": "VST 3.7.4",
    "Sub Categories": ["Fx"],
    "Class Flags": 0,
    "Cardinality": 0x7FFFFFFF,
    "Snapshots": [],
}


def only_multi(bundle, folder):
    """A copy of the bundle that shows the multi-output class alone."""
    copy = pathlib.Path(folder) / "Nullsum.vst3"
    shutil.copytree(bundle, copy)
    flags = {"Unicode": True, "Classes Discardable": False, "Component Non Discardable": False}
    factory = {"Vendor": "Nullsum", "URL": "", "E-Mail": "", "Flags": flags}
    info = {"Name": "Nullsum", "Version": "0.1.0", "Factory Info": factory, "Classes": [MULTI]}
    (copy / "Contents" / "moduleinfo.json").write_text(json.dumps(info))
    return str(copy)


def render(path, mixture, settings):
    """All buses [7, 2, samples], aligned by the latency that the plugin reports."""
    engine = dawdreamer.RenderEngine(music.RATE, BLOCK)
    plugin = engine.make_plugin_processor("nullsum", path)
    music.claim(
        (plugin.get_num_input_channels(), plugin.get_num_output_channels()) == (2, 14),
        "2 channels in, 14 out",
    )
    indices = {description["name"]: description["index"] for description in plugin.get_parameters_description()}
    for name, value in settings.items():
        plugin.set_parameter(indices[name], value)
    # Room behind the music for the latency, which is known once the plugin runs.
    padded = np.pad(mixture, ((0, 0), (0, ROOM * music.RATE)))
    engine.load_graph([(engine.make_playback_processor("song", padded), []), (plugin, ["song"])])
    engine.render(float(SECONDS + ROOM))
    output = plugin.get_audio()
    latency = plugin.get_latency_samples()
    print(f"latency {latency} samples")
    return output[:, latency : latency + mixture.shape[1]].reshape(7, 2, -1)


def main(bundle, song):
    mixture = music.read(song, SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        path = only_multi(bundle, folder)
        # DawDreamer announces no rendering, and its parameters arrive with the first block. In `Auto` the tier would be
        # another once the device is measured, and with it the windows.
        low = {"Latency Tier": 1 / 3, "Render Mode": 1.0}
        buses = render(path, mixture, low)
        music.claim(np.all(np.isfinite(buses)), "every sample is a number")
        music.claim(np.array_equal(buses[0], mixture), "at unity the main bus is the music itself")
        for name, bus in zip(STEMS, buses[1:]):
            print(f"{name}: {music.level_db(bus):.1f} dBFS")
        heard = sum(music.level_db(bus) > -60 for bus in buses[1:])
        music.claim(heard >= 3, f"{heard} stems are heard")
        for order in ([1, 2, 3, 4, 5, 6], [4, 2, 6, 1, 3, 5]):
            total = np.zeros_like(mixture)
            for bus in order:
                total += buses[bus]
            music.claim(np.array_equal(total, buses[0]), f"buses {order} sum to the main bus bit for bit")
        muted = render(path, mixture, low | {"Drums Mute": 1.0})
        left = np.max(np.abs(mixture - buses[2] - muted[0]))
        music.claim(left < 1e-6, f"without drums the main bus is the music less the bus of drums: {left:.1e}")


main(sys.argv[1], sys.argv[2])
