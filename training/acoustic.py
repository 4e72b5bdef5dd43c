"""Acoustic drums from recorded hits: General MIDI soundfonts, Emanuel Rumpf's samples and DrumGizmo's MuldjordKit, mixed, tuned, damped and
played.

A shelf holds the hits of one source: {voice: [hits from soft to loud]}. A hit is float32 [t] at its recorded level.
"""

import numpy as np
import scipy.signal

import bus
from drum_machine import log_uniform
from midi import Score
from prepare import SAMPLE_RATE, decode
from synthesize import DRUMS, render

PROGRAMS = (0, 1, 2, 3, 8, 9, 16, 17, 32, 40)
VELOCITIES = (35, 70, 100, 124)
KEYS = dict(
    kick=(36, 35), snare=(38, 40), rim=(37,), hat=(42, 44), open=(46,), ride=(51, 59), bell=(53,), crash=(49, 57, 55), china=(52,),
    tom_hi=(50, 48), tom_mid=(47, 45), tom_lo=(43, 41), cowbell=(56,), tambourine=(54,), shaker=(70, 69), clap=(39,),
)  # fmt: skip
RUMPF = dict(
    kick=("06-38", "06-46", "07-18", "07-20"), snare=("01-21", "06-25"), rim=("09-12",), hat=("09-10", "06-28"), open=("08-31",),
    ride=("08-20",), bell=("06-40",), crash=("06-43", "06-30"), tom_hi=("08-19",), tom_mid=("08-18",), tom_lo=("08-17",),
    cowbell=("08-32",), clap=("01-26",),
)  # fmt: skip
MULDJORD = dict(
    kick=("KdrumL", "KdrumR"), snare=("Snare1", "Snare2"), hat=("HihatClosed",), open=("HihatOpen",), ride=("RideL", "RideR"),
    bell=("RideLBell", "RideRBell"), crash=("CrashL", "CrashR"), china=("China",), tom_hi=("Tom1",), tom_mid=("Tom2", "Tom3"), tom_lo=("Tom4",),
)  # fmt: skip
SECONDS = 2.5


def trimmed(audio):
    """Mono [t], from the stroke until it has decayed."""
    audio = audio.mean(1) / 32768 if audio.ndim == 2 else audio
    loud = np.flatnonzero(np.abs(audio) > 0.003 * max(np.abs(audio).max(), 1e-4))
    if not len(loud):
        return np.zeros(1, np.float32)
    audio = audio[max(0, loud[0] - 40) : loud[-1] + 1].astype(np.float32)
    fade = min(len(audio), 600)
    audio[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio


def soundfont_shelves(soundfont):
    """Two shelves per kit: every voice with its first and with its last key."""
    rng = np.random.default_rng(0)
    for program in PROGRAMS:
        notes = [(voice, keys[side], velocity) for side in (0, -1) for voice, keys in KEYS.items() for velocity in VELOCITIES]
        score = Score(60)
        score.program(DRUMS, program, 127)
        for i, (_, key, velocity) in enumerate(notes):
            score.note(DRUMS, key, velocity, 0.1 + i * SECONDS, 0.3)
        audio = render(score, soundfont, rng, dry=True)
        step, first = int(SECONDS * SAMPLE_RATE), int(0.1 * SAMPLE_RATE) - 100
        shelves = ({}, {})
        for i, (voice, _, _) in enumerate(notes):
            hit = trimmed(audio[first + i * step : first + (i + 1) * step - 200])
            shelves[i * 2 // len(notes)].setdefault(voice, []).append(hit)
        yield from shelves


def rumpf_shelves(folder):
    """One hit per voice; the kit sets its loudness."""
    for turn in range(4):
        yield {voice: [trimmed(decode(folder / f"beats_{names[turn % len(names)]}.flac"))] for voice, names in RUMPF.items()}


def muldjord_shelves(folder):
    """One drum of every pair a shelf, and every fourth part of its hits a layer; other hits of it in every turn."""
    drums = {}
    for name in {name for names in MULDJORD.values() for name in names}:
        hits = [trimmed(decode(path)) for path in sorted((folder / name).glob("*.flac"))]
        drums[name] = np.array_split(np.array(sorted(hits, key=lambda hit: np.abs(hit).max()), object), len(VELOCITIES))
    for turn in range(8):
        yield {
            voice: [part[turn % len(part)] for part in drums[names[turn % len(names)]] if len(part)]
            for voice, names in MULDJORD.items()
        }


def shelves(soundfonts, rumpf=None, muldjord=None):
    found = [shelf for soundfont in soundfonts for shelf in soundfont_shelves(soundfont)]
    found += list(rumpf_shelves(rumpf)) * 3 if rumpf else []
    return found + (list(muldjord_shelves(muldjord)) * 3 if muldjord else [])


def tuned(hit, ratio):
    """Resample to play faster by `ratio`."""
    count = int(len(hit) / ratio)
    return np.interp(np.arange(count) * ratio, np.arange(len(hit)), hit).astype(np.float32)


class Kit:
    """One drummer's kit; most drums come from one shelf."""

    def __init__(self, rng, shelves):
        self.rng, own, self.voices, self.cache = rng, shelves[rng.integers(len(shelves))], {}, {}
        size = rng.normal(0, 1.5)
        for voice in KEYS:
            shelf = own
            while voice not in shelf or rng.random() < 0.25:
                shelf = shelves[rng.integers(len(shelves))]
            cymbal = voice in ("hat", "open", "ride", "bell", "crash", "china")
            ratio = 2 ** ((size * (0.5 if cymbal else 1) + rng.normal(0, 1)) / 12)
            # Tape on the skin, or none.
            damping = log_uniform(rng, 0.06, 1) if not cymbal and rng.random() < 0.4 else None
            loudest = max(np.abs(hit).max() for hit in shelf[voice]) + 1e-6
            self.voices[voice] = [hit / loudest for hit in shelf[voice]], ratio, damping

    def hit(self, voice, velocity):
        """float32 [t]; two variants of each loudness, so that consecutive strokes differ."""
        layers, ratio, damping = self.voices[voice]
        layer = min(len(layers) - 1, int(np.searchsorted(VELOCITIES, velocity - 12)))
        name = voice, layer, int(self.rng.integers(2))
        if name not in self.cache:
            hit = tuned(layers[layer], ratio * 2 ** (self.rng.normal(0, 0.15) / 12))
            if damping:
                hit = hit * np.exp(-np.arange(len(hit), dtype=np.float32) / (damping * SAMPLE_RATE))
            self.cache[name] = hit
        gain = (min(velocity, 127) / 110) ** (2 if len(layers) == 1 else 0.8)
        hit = self.cache[name]
        if len(layers) == 1 and velocity < 90:
            hit = scipy.signal.lfilter([1 - 0.4], [1, -0.4], hit)
        return np.float32(gain) * hit


def drummer(song, shelves):
    """float32 [s, t] of a song's `hits`: close microphones, overheads, a room, perhaps crushed in parallel."""
    rng = song.rng
    kit = Kit(rng, shelves)
    close, overhead = np.zeros((2, song.length), np.float32), np.zeros((2, song.length), np.float32)
    metal = rng.uniform(0.2, 0.6)
    levels = dict(kick=rng.uniform(0.7, 1.2), snare=rng.uniform(0.6, 1.1), hat=metal * 0.6, open=metal * 0.8, ride=metal, crash=metal * 1.2)
    pan = {voice: 0.0 if voice in ("kick", "snare") else rng.uniform(-0.7, 0.7) for voice in kit.voices}
    renamed = {"hat": str(rng.choice(["hat"] * 6 + ["shaker", "ride", "tambourine"])), "snare": "rim" if rng.random() < 0.08 else "snare"}
    renamed["crash"] = "china" if rng.random() < 0.1 else "crash"
    for bar, step, voice, velocity in song.hits():
        if not song.plays("drums", bar):
            continue
        voice = renamed.get(voice, voice)
        beat = song.beat(bar, step)
        hit = kit.hit(voice, velocity * rng.normal(1, 0.06))
        song.add(close, hit, beat, pan[voice], levels.get(voice, 0.7))
        song.add(overhead, hit, beat + 0.004 * song.bpm / 60, pan[voice] * 1.3 * 0.7, levels.get(voice, 0.7) * (0.3 if voice == "kick" else 1))
        if voice == "kick":
            song.kicks.append(song.at(beat))
    if rng.random() < 0.3:
        voice, every = str(rng.choice(["tambourine", "shaker", "cowbell", "clap"])), int(rng.choice([2, 4, 8]))
        for bar in range(song.bars):
            for step in range(every // 2 if every > 2 else 0, 16, every):
                if song.plays("drums", bar):
                    song.add(close, kit.hit(voice, rng.normal(85, 12)), song.beat(bar, step), pan[voice], 0.3)
    out = rng.uniform(0.4, 1) * close + rng.uniform(0, 0.8) * overhead
    if rng.random() < 0.85:
        out = bus.reverb(rng, out, log_uniform(rng, 0.15, 1.4), log_uniform(rng, 0.05, 0.7))
    if rng.random() < 0.4:
        crushed = out * bus.compression(out / np.abs(out).max(), -32, 10, 0.002, 0.08)
        out = out + rng.uniform(0.3, 1.5) * bus.saturate(rng, crushed, 10)
    if rng.random() < 0.4:
        out = out * bus.compression(out / np.abs(out).max(), rng.uniform(-20, -8), rng.uniform(2, 6), rng.uniform(0.003, 0.03))
    if rng.random() < 0.3:
        out = bus.saturate(rng, out)
    return bus.tilt(rng, out)
