"""Freedoom's music, sixty real compositions as MIDI, rendered as stems drums, bass and other.

    python compositions.py --out POOL --soundfonts A.sf2,B.sf3 --wads freedoom1.wad,freedoom2.wad

Channel 10 is the drums, General MIDI's basses are the bass. An excerpt of a song is rendered, in a drawn key, with a drawn kit and
with some instruments replaced by others of their family. Existing songs are kept.
"""

import argparse
import struct
from pathlib import Path

import numpy as np

from midi import variable_length
from prepare import SAMPLE_RATE, store, unfinished
from synthesize import DRUMS, KITS, finish, render

BASSES = range(32, 40)


class Excerpt:
    """A MIDI file of some events of another: what `render` asks of a score."""

    def __init__(self, division, events):
        self.division, self.events = division, events

    def write(self, path):
        track, now = b"", 0
        for tick, data in self.events:
            track += variable_length(tick - now) + data
            now = tick
        track += variable_length(self.division) + b"\xff\x2f\x00"
        header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, self.division)
        path.write_bytes(header + b"MTrk" + struct.pack(">I", len(track)) + track)


def songs(path):
    """(name, MIDI bytes) of a WAD's music."""
    data = path.read_bytes()
    count, table = struct.unpack_from("<ii", data, 4)
    for i in range(count):
        start, size, name = struct.unpack_from("<ii8s", data, table + 16 * i)
        name = name.rstrip(b"\0").decode("ascii", "replace")
        if name.startswith("D_") and data[start : start + 4] == b"MThd":
            yield name[2:].lower().replace("_", "-"), data[start : start + size]


def number(data, at):
    """A variable-length number and where it ends."""
    value = 0
    while True:
        byte = data[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at


def events(data):
    """(division, [(tick, message)]) of all tracks, in order; tempo is the only meta event kept."""
    length, _, tracks, division = struct.unpack_from(">IHHH", data, 4)
    out, at = [], 8 + length
    for _ in range(tracks):
        size = struct.unpack_from(">I", data, at + 4)[0]
        at += 8
        end, tick, status = at + size, 0, 0
        while at < end:
            delta, at = number(data, at)
            tick += delta
            if data[at] & 0x80:
                status, at = data[at], at + 1
            if status in (0xFF, 0xF0, 0xF7):
                kind, at = (data[at], at + 1) if status == 0xFF else (None, at)
                count, at = number(data, at)
                if kind == 0x51:
                    out.append((tick, b"\xff\x51\x03" + data[at : at + 3]))
                at += count
            else:
                count = 1 if status >> 4 in (0xC, 0xD) else 2
                out.append((tick, bytes([status]) + data[at : at + count]))
                at += count
        at = end
    return division, sorted(out, key=lambda event: event[0])


def excerpt(division, all_events, start, seconds):
    """Events of `seconds` from a share `start` of the song: what was set before is set at its beginning."""
    end = all_events[-1][0]
    out, now, tempo, first = [], 0.0, 500000, None
    last = 0
    for tick, data in all_events:
        now += (tick - last) * tempo / division / 1e6 if first is not None else 0.0
        last = tick
        if data[:2] == b"\xff\x51":
            tempo = int.from_bytes(data[3:], "big")
        if first is None and tick >= start * end:
            first = tick
        if now > seconds:
            break
        note = data[0] >> 4 in (8, 9)
        if first is not None or not note:
            out.append((0 if first is None else tick - first, data))
    # Notes that are cut would sound for ever.
    return out + [(out[-1][0], bytes([0xB0 | channel, 120, 0])) for channel in range(16)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--soundfonts", required=True, help="comma-separated")
    parser.add_argument("--wads", required=True, help="comma-separated")
    parser.add_argument("--seconds", type=float, default=40)
    args = parser.parse_args()
    soundfonts = args.soundfonts.split(",")
    for i, (name, data) in enumerate(song for wad in args.wads.split(",") for song in songs(Path(wad))):
        folder = args.out / f"midi-{name}"
        if folder.exists():
            continue
        rng = np.random.default_rng([99, i])
        division, all_events = events(data)
        part = excerpt(division, all_events, rng.uniform(0.05, 0.45), args.seconds)
        shift, kit = int(rng.integers(-4, 5)), int(rng.choice(KITS))
        programs, stems = {}, dict(drums=[], bass=[], other=[])
        for tick, message in part:
            kind, channel = message[0] >> 4, message[0] & 15
            if kind == 0xF:
                for out in stems.values():
                    out.append((tick, message))
                continue
            if kind == 0xC:
                program = message[1] // 8 * 8 + int(rng.integers(8)) if rng.random() < 0.5 else message[1]
                if channel == DRUMS:
                    program = kit
                programs[channel] = program
                message = bytes([message[0], program])
            if kind in (8, 9, 0xA) and channel != DRUMS:
                message = bytes([message[0], min(127, max(0, message[1] + shift)), message[2]])
            stem = "drums" if channel == DRUMS else "bass" if programs.get(channel, 0) in BASSES else "other"
            # Controllers may come before the program that says which stem a channel is.
            for out in stems.values() if kind in (0xB, 0xC, 0xE) else [stems[stem]]:
                out.append((tick, message))
        if len([m for _, m in stems["drums"] if m[0] >> 4 == 9]) < 20:
            continue
        temporary = unfinished(folder)
        for stem, chosen in stems.items():
            if any(m[0] >> 4 == 9 and m[2] for _, m in chosen):
                soundfont = soundfonts[rng.integers(len(soundfonts))]
                audio = render(Excerpt(division, chosen), soundfont, rng)[: int(args.seconds * SAMPLE_RATE)]
                store(finish(audio.astype(np.float32)), temporary / f"{stem}.npy")
        if temporary.exists():
            temporary.rename(folder)
            print(folder.name, flush=True)


if __name__ == "__main__":
    main()
