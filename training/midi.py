"""A minimal writer of Standard MIDI Files, for `synthesize.py`."""

import struct

TICKS = 480


def variable_length(value):
    out = bytes([value & 0x7F])
    while value := value >> 7:
        out = bytes([0x80 | (value & 0x7F)]) + out
    return out


class Score:
    """Notes in beats; one tempo."""

    def __init__(self, bpm):
        self.bpm = bpm
        self.events = []

    def message(self, beat, *data):
        self.events.append((max(0, round(beat * TICKS)), len(self.events), bytes(data)))

    def program(self, channel, program, volume=100, pan=64):
        self.message(0, 0xC0 | channel, program)
        self.message(0, 0xB0 | channel, 7, volume)
        self.message(0, 0xB0 | channel, 10, pan)

    def note(self, channel, key, velocity, beat, length):
        if 0 <= key <= 127 and velocity >= 1:
            self.message(beat, 0x90 | channel, key, min(127, velocity))
            self.message(beat + length, 0x80 | channel, key, 0)

    def write(self, path):
        track = variable_length(0) + b"\xff\x51\x03" + round(6e7 / self.bpm).to_bytes(3, "big")
        now = 0
        for tick, _, data in sorted(self.events):
            track += variable_length(tick - now) + data
            now = tick
        track += variable_length(TICKS * 4) + b"\xff\x2f\x00"
        header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS)
        path.write_bytes(header + b"MTrk" + struct.pack(">I", len(track)) + track)
