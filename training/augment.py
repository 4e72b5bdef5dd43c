"""Mixtures for training: stems of different songs, or one song as it is, changed and summed.

Batch `i` depends on the seed and on `i` alone, so that a resumed run sees what an uninterrupted one would.
Per stem: speed (pitch and tempo together), equaliser, reverb and level in one pass over the crop's spectrum, then
saturation, width, channel swap and polarity. Per mixture: one gain curve of a compressor and one band limit, the same for
every stem, so that the stems still sum to it. Axis letters: n stem, s audio channel, t sample.
"""

import itertools
from pathlib import Path

import numpy as np
import scipy.fft
import torch

import bus
from prepare import KINDS, SAMPLE_RATE, STEMS, held_out, kind

# Range in semitones by which resampling may shift a stem. The pool's voices are high, so vocals may go down further.
SHIFT = {"drums": (-3, 3), "bass": (-4, 4), "other": (-4, 4), "vocals": (-7, 2)}
LEVEL_DB = {"drums": (-22, 5), "bass": (-23, 5), "other": (-22, 5), "vocals": (-22, 5)}
ACTIVE = 10 ** (-45 / 20)
# Weight of each kind of source.
WEIGHTS = "song=0.8,variant=1.2,loose=0.4,morph=0.6,sung=0.6,choir=0.4,sectoid=0.3,synth=0.5,electro=1,midi=0.5,band=1.5"


def read_weights(text):
    weights = {name: float(share) for name, share in (pair.split("=") for pair in text.split(","))}
    if unknown := weights.keys() - {"song", *KINDS}:
        raise SystemExit(f"unknown kinds of source: {', '.join(sorted(unknown))}; there are: song, {', '.join(KINDS)}")
    return weights


class Track:
    """One stem of one song: int16 [t, s] on disk, with its level while it sounds."""

    def __init__(self, path):
        self.path = path
        self.audio = np.load(path, mmap_mode="r")
        self.length = len(self.audio)
        block = SAMPLE_RATE // 2
        count = self.length // block
        squares = [
            np.mean((self.audio[i * block : (i + 1) * block].astype(np.float32) / 32768) ** 2) for i in range(count)
        ]
        rms = np.sqrt(squares)
        self.blocks = np.flatnonzero(rms > ACTIVE)
        self.level = float(np.sqrt(np.mean(rms[self.blocks] ** 2))) if len(self.blocks) else 0.0

    def read(self, start, length):
        return self.audio[start : start + length].astype(np.float32).T / 32768


class Pool:
    """All tracks below a folder except the held-out songs, with a weight per kind of source. Kinds without a weight are left out."""

    def __init__(self, root, holdout, weights):
        self.songs = []
        self.tracks = {stem: [] for stem in STEMS}
        self.weights = {}
        left_out = set()
        for folder in sorted(Path(root).iterdir()):
            if held_out(folder.name, holdout):
                continue
            source = kind(folder.name)
            if not weights.get(source):
                left_out.add(source)
                continue
            song = {}
            for stem in STEMS:
                path = folder / f"{stem}.npy"
                if path.exists():
                    track = Track(path)
                    if len(track.blocks) > 4:
                        song[stem] = track
                        self.tracks[stem].append(track)
                        track.kind = source
            if len(song) >= 3:
                self.songs.append(song)
        self.sung = [song for song in self.songs if "vocals" in song]
        if left_out:
            print(f"left out, as they have no weight: {', '.join(sorted(left_out))}", flush=True)
        for stem, tracks in self.tracks.items():
            if not tracks:
                raise SystemExit(f"{root}: no {stem} in what has a weight")
            seconds, share = {}, np.zeros(len(tracks))
            for track in tracks:
                seconds[track.kind] = seconds.get(track.kind, 0) + len(track.blocks)
            for i, track in enumerate(tracks):
                share[i] = weights[track.kind] * len(track.blocks) / seconds[track.kind]
            self.weights[stem] = share / share.sum()

    def pick(self, rng, stem):
        tracks = self.tracks[stem]
        return tracks[rng.choice(len(tracks), p=self.weights[stem])]


def equaliser(rng, bins, strength):
    """Smooth gain over [bins], linear in amplitude: a tilt and two bells on a logarithmic axis."""
    octave = np.linspace(4.3, 14.5, 128, dtype=np.float32)
    gain_db = rng.normal(0, 0.7 * strength) * (octave - 10)
    for _ in range(2):
        centre, width = rng.uniform(6, 14), rng.uniform(0.4, 1.5)
        gain_db = gain_db + rng.normal(0, 3 * strength) * np.exp(-0.5 * ((octave - centre) / width) ** 2)
    gain = 10 ** (np.clip(gain_db, -15, 12) / 20)
    return np.interp(np.linspace(0, SAMPLE_RATE / 2, bins), 2**octave, gain).astype(np.float32)


def reverb(rng, length):
    """Spectrum [s, bins] of the direct sound plus a decaying tail, independent for each channel."""
    seconds = rng.uniform(0.15, 1.2)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal((2, length), dtype=np.float32) * np.exp(-6.9 * t / np.float32(seconds))
    tail *= 10 ** rng.uniform(-1.2, -0.4) / np.sqrt(np.sum(tail**2, -1, keepdims=True))
    tail[:, 0] += 1
    return scipy.fft.rfft(tail)


def crop(rng, track, stem, length, start=None, ratio=None):
    """[s, t] of `length` samples from a place where the track sounds, resampled, equalised, perhaps in a room."""
    if ratio is None:
        low, high = SHIFT[stem]
        ratio = 2 ** (rng.uniform(low, high) / 12) if rng.random() < 0.6 else 1.0
    need = scipy.fft.next_fast_len(round(length * ratio), real=True)
    if start is None:
        block = int(track.blocks[rng.integers(len(track.blocks))]) * (SAMPLE_RATE // 2)
        start = block - int(rng.integers(0, need))
        start = max(0, min(start, track.length - need))
    audio = track.read(start, need)
    if audio.shape[-1] < need:
        audio = np.pad(audio, ((0, 0), (0, need - audio.shape[-1])))
    if need == length and rng.random() < 0.25:
        return audio
    spectrum = scipy.fft.rfft(audio, workers=1)
    bins = length // 2 + 1
    if spectrum.shape[-1] < bins:
        spectrum = np.pad(spectrum, ((0, 0), (0, bins - spectrum.shape[-1])))
    spectrum = spectrum[:, :bins] * (length / need)
    if rng.random() < 0.7:
        spectrum = spectrum * equaliser(rng, bins, 1.0 if stem != "bass" else 0.7)
    if stem in ("vocals", "other", "drums") and rng.random() < (0.35 if stem == "vocals" else 0.15):
        spectrum = spectrum * reverb(rng, length)
    return scipy.fft.irfft(spectrum, length, workers=1)


def place(rng, audio, stem):
    """Width, side and polarity."""
    width = 1.0
    draw = rng.random()
    if draw < 0.25:
        width = rng.uniform(0.0, 0.7)
    elif draw < 0.4:
        width = rng.uniform(1.0, 1.6)
    if stem == "bass" and rng.random() < 0.5:
        width = 0.0
    mid, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2 * width
    left, right = mid + side, mid - side
    if rng.random() < 0.2 and stem in ("other", "vocals"):
        pan = rng.uniform(-0.6, 0.6)
        left, right = left * (1 - max(0, pan)), right * (1 + min(0, pan))
    if rng.random() < 0.5:
        left, right = right, left
    audio = np.stack((left, right))
    return -audio if rng.random() < 0.5 else audio


def saturated(rng, audio):
    """Sometimes a soft clip, at an unchanged level."""
    if rng.random() > 0.12:
        return audio
    level = np.sqrt(np.mean(audio**2)) + 1e-6
    gain = np.exp(rng.uniform(-1, 1.2)) / (3 * level)
    out = np.tanh(gain * audio)
    return out * (level / (np.sqrt(np.mean(out**2)) + 1e-6))


def mastered(rng, stems):
    """Sometimes a compressor's gain, and what a lossy codec leaves of the highs."""
    if rng.random() < 0.3:
        mixture = stems.sum(0)
        peak = np.abs(mixture).max() + 1e-6
        stems = stems * bus.compression(mixture / peak, rng.uniform(-18, -4), rng.uniform(1.5, 6), rng.uniform(0.001, 0.03))
    if rng.random() < 0.15:
        spectrum = scipy.fft.rfft(stems, workers=1)
        edge = int(rng.uniform(9500, 17000) / SAMPLE_RATE * stems.shape[-1])
        slope = np.linspace(1, 0, 400, dtype=np.float32)
        spectrum[..., edge : edge + 400] *= slope
        spectrum[..., edge + 400 :] = 0
        stems = scipy.fft.irfft(spectrum, stems.shape[-1], workers=1)
    return stems


def example(rng, pool, length, coherent=0.25, inside=0.0, low_drums=0.0, voiceless=0.12):
    """Stems [n, s, t]; their sum is the mixture.

    `coherent`: share of one song as it is. `inside`: share of stems of one song from different places in it, which go
    together in tempo, key and sound without being played together. The rest is mixed across songs; there `low_drums` is
    the share of drums taken down by up to an octave, as long, low kicks are few in the pool and easily taken for a bass.
    `voiceless`: share of the mixed examples, and of those of songs without a singer, that stay without one.
    """
    stems = np.zeros((len(STEMS), 2, length), np.float32)
    draw = rng.random()
    if pool.songs and draw < coherent + inside:
        group = pool.sung if pool.sung and rng.random() < 0.6 else pool.songs
        song = group[rng.integers(len(group))]
        tracks = list(song.values())
        guide = tracks[rng.integers(len(tracks))]
        ratio = 2 ** (rng.uniform(-3, 3) / 12) if rng.random() < 0.5 else 1.0
        block = int(guide.blocks[rng.integers(len(guide.blocks))]) * (SAMPLE_RATE // 2)
        start = max(0, min(block, min(t.length for t in tracks) - 2 * length))
        for n, stem in enumerate(STEMS):
            if stem in song and rng.random() > 0.05:
                gain = 10 ** (rng.normal(0, 3) / 20)
                audio = crop(rng, song[stem], stem, length, start if draw < coherent else None, ratio)
                stems[n] = gain * (audio if rng.random() < 0.5 else audio[::-1])
        voice = STEMS.index("vocals")
        if "vocals" not in song and rng.random() > voiceless:
            audio = place(rng, crop(rng, pool.pick(rng, "vocals"), "vocals", length), "vocals")
            level = np.sqrt(np.mean(stems**2) / np.mean(audio**2 + 1e-9)) * len(STEMS) ** 0.5
            stems[voice] = audio * level * 10 ** (rng.normal(-5, 4) / 20)
    else:
        keep = rng.random(len(STEMS)) > np.array([0.06, 0.08, 0.06, voiceless])
        if not keep.any():
            keep[rng.integers(len(STEMS))] = True
        for n, stem in enumerate(STEMS):
            if not keep[n]:
                continue
            mean, deviation = LEVEL_DB[stem]
            extra = rng.random() < {"drums": 0.1, "bass": 0.0, "other": 0.4, "vocals": 0.2}[stem]
            for layer in range(2 if extra else 1):
                track = pool.pick(rng, stem)
                level = mean + rng.normal(0, deviation) - 4 * layer
                gain = 10 ** (level / 20) / max(track.level, 1e-4)
                low = stem == "drums" and low_drums > 0 and rng.random() < low_drums
                ratio = 2 ** (rng.uniform(-12, -3) / 12) if low else None
                stems[n] += gain * place(rng, saturated(rng, crop(rng, track, stem, length, ratio=ratio)), stem)
    stems = mastered(rng, stems)
    peak = np.abs(stems.sum(0)).max()
    return stems * (10 ** (rng.uniform(-12, -0.3) / 20) / max(peak, 1e-3))


class Batches(torch.utils.data.IterableDataset):
    """Endless batches [b, n, s, t] from number `first` on; a loader's workers make them in turn, and it keeps their order."""

    def __init__(self, root, holdout, weights, batch, length, first=0, seed=0, **shares):
        self.pool, self.shares = Pool(root, holdout, weights), shares
        self.batch, self.length, self.first, self.seed = batch, length, first, seed

    def make(self, index):
        rng = np.random.default_rng([self.seed, index % 2**32])
        stems = np.stack([example(rng, self.pool, self.length, **self.shares) for _ in range(self.batch)])
        return torch.from_numpy(stems.astype(np.float32))

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        if worker:
            torch.set_num_threads(1)
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in itertools.count(self.first + number, workers):
            yield self.make(index)


