"""Vocals from singing and speech synthesis, and variants of recorded singers.

    python singer.py --out POOL --songs 60 [--flite FLITE] [--jtalk VOICE] [--loose 2] [--of SONG,SONG]

Sinsy's voice (CC-BY 3.0, Nagoya Institute of Technology) and, with `--flite` and `--jtalk`, the speaking voices of CMU flite
and of Open JTalk sing procedural melodies, or speak fast; `voice.py` makes them high, low, thin, wide and breathy. `--loose`
does the same to every loose voice of the pool and to the vocals of the songs `--of`, the given number of times. Voices are
doubled, harmonised, layered to choirs, chopped, and given reverb. Existing songs are kept.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pysinsy
import scipy.io.wavfile
import scipy.signal

import bus
from drum_machine import log_uniform
from prepare import HOLDOUT, SAMPLE_RATE, store
from synthesize import MAJOR, MINOR
from treatment import treated
from voice import Voice, sung

KANA = list("あいうえおかきくけこさしすせそたてとなにぬねのはひふへほまみむめもやゆよらりるれろわがぎぐげごだでどばびぶべぼ")
WORDS = (
    "all alone again away beneath baby believe blue breathe bright burning call carry city closer cold come crazy cry dance dark day dream "
    "down every eyes fall far feel fire fly follow forever free gone good hand heart heaven hear hold home hope hurry i'm into keep "
    "know lately leave let's life light like lonely long look lose love maybe me mine moon moving my never night now oh on only open "
    "over people promise rain ready remember river rise road run said shadow shine show sky slowly so somebody someone song stay "
    "still stone stop summer sun take tell the there through time today together tonight touch true turn under wait walk want "
    "water we were what when where will wind with without wonder world yeah you young your"
).split()
FLITE = ("awb", "rms", "slt", "kal16")
WOMEN = ("slt", "jtalk")
DICTIONARY = "/var/lib/mecab/dic/open-jtalk/naist-jdic"
STEPS = ("C", "C", "D", "D", "E", "F", "F", "G", "G", "A", "A", "B")
SHARPS = (0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0)


def melody(rng, lowest, highest):
    """MIDI keys without end: small steps within a scale, back to where they came from."""
    scale, tonic = (MAJOR, MINOR)[rng.integers(2)], rng.integers(12)
    keys = [k for k in range(lowest, highest + 1) if (k - tonic) % 12 in scale]
    at, home = len(keys) // 2, len(keys) // 2
    while True:
        pull = 0.15 * (home - at) / len(keys)
        at += int(rng.choice([-3, -2, -1, 0, 1, 2, 3], p=np.array([1, 2, 5, 5, 5, 2, 1]) / 21)) + (rng.random() < abs(pull)) * int(np.sign(pull))
        at = int(np.clip(at, 0, len(keys) - 1))
        yield keys[at]


def score(rng, seconds, tempo):
    """MusicXML of one part in 4/4, divisions of a sixteenth."""
    keys, notes = melody(rng, int(rng.integers(57, 64)), int(rng.integers(70, 78))), []
    bars = int(np.ceil(seconds * tempo / 240)) + 1
    vowels = rng.random() < 0.15
    lengths = [(2, 2, 4, 4, 8), (1, 2, 2, 2, 4), (4, 4, 8, 16)][rng.integers(3)]
    for bar in range(bars):
        step = 0
        while step < 16:
            length = min(16 - step, int(rng.choice(lengths)))
            key = next(keys)
            pause = bar in (0, bars - 1) or rng.random() < (0.1 if bar % 4 < 3 else 0.35)
            if pause:
                body = "<rest/>"
            else:
                alter = "<alter>1</alter>" if SHARPS[key % 12] else ""
                body = f"<pitch><step>{STEPS[key % 12]}</step>{alter}<octave>{key // 12 - 1}</octave></pitch>"
            text = str(rng.choice(KANA[:5] if vowels else KANA))
            lyric = "" if pause else f"<lyric><text>{text}</text></lyric>"
            notes.append((bar, f"<note>{body}<duration>{length}</duration><voice>1</voice>{lyric}</note>"))
            step += length
    measures = ""
    for bar in range(bars):
        head = "<attributes><divisions>4</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
        head += f'<direction><sound tempo="{tempo:.0f}"/></direction>'
        measures += f'<measure number="{bar + 1}">{head if bar == 0 else ""}{"".join(n for b, n in notes if b == bar)}</measure>'
    part = '<part-list><score-part id="P1"><part-name>v</part-name></score-part></part-list>'
    return f'<?xml version="1.0" encoding="UTF-8"?><score-partwise version="2.0">{part}<part id="P1">{measures}</part></score-partwise>'


def sinsy(rng, seconds):
    """Voice of Sinsy, whose source is a woman."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xml"
        path.write_text(score(rng, seconds, rng.uniform(80, 150)))
        engine = pysinsy.sinsy.Sinsy()
        engine.setLanguages("j", pysinsy.get_default_dic_dir())
        engine.loadVoices(pysinsy.get_default_htsvoice())
        engine.loadScoreFromMusicXML(str(path))
        audio, rate = engine.synthesize()
    return Voice(np.asarray(audio) / 32768, rate)


def flite(rng, program, name, seconds):
    """Audio and rate of a voice of flite, which speaks."""
    lines = [" ".join(rng.choice(WORDS, int(rng.integers(3, 8)))) + "," for _ in range(int(seconds / 4) + 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        subprocess.run([program, "-voice", name, "-t", " ".join(lines), "-o", path], check=True, capture_output=True)
        rate, audio = scipy.io.wavfile.read(path)
    return audio / 32768, rate


def jtalk(rng, voice, seconds):
    """Audio and rate of a voice of Open JTalk, which speaks."""
    words = ["".join(rng.choice(KANA, int(rng.integers(2, 6)))) for _ in range(int(seconds * 1.2) + 2)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        text = "、".join("".join(words[i : i + 3]) for i in range(0, len(words), 3))
        options = ["-m", voice, "-x", DICTIONARY, "-r", f"{rng.uniform(0.8, 1.4):.2f}", "-a", f"{rng.uniform(0.5, 0.6):.3f}", "-ow", path]
        subprocess.run(["open_jtalk", *options], input=text.encode(), check=True, capture_output=True)
        rate, audio = scipy.io.wavfile.read(path)
    return audio / 32768, rate


def speaker(rng, args):
    """Voice that sings in its own range or below, or that speaks, as rappers do."""
    names = (list(FLITE) if args.flite else []) + (["jtalk"] * 3 if args.jtalk else [])
    name, seconds = names[rng.integers(len(names))], args.seconds / 2
    speech = rng.random() < 0.3
    seconds *= 2 if speech else 1
    audio, rate = jtalk(rng, args.jtalk, seconds) if name == "jtalk" else flite(rng, args.flite, name, seconds)
    voice = Voice(audio, rate)
    if speech:
        pace = rng.uniform(0.8, 1.5)
        return voice.stretched(np.arange(0, len(voice.pitch) - 1, pace))
    centre = int(rng.integers(60, 68)) if name in WOMEN else int(rng.integers(48, 60))
    return sung(rng, voice, melody(rng, centre - 7, centre + 8), rng.uniform(80, 140))


def late(audio, seconds):
    return np.concatenate((np.zeros(int(seconds * SAMPLE_RATE)), audio))


def dressed(rng, voice, pitch, *colour):
    """float32 [s, t]: the voice, perhaps doubled or in harmony, compressed, in a room."""
    lead = voice.sound(pitch, *colour)
    tracks = [(lead, 0.0, 1.0)]
    style = rng.random()
    if style < 0.2:
        for side in (-1, 1):
            detuned = voice.sound(pitch * 2 ** (rng.normal(0, 0.12) / 12), *colour)
            tracks.append((late(detuned, rng.uniform(0.008, 0.035)), side * rng.uniform(0.4, 1), rng.uniform(0.3, 0.9)))
    elif style < 0.35:
        for interval in rng.choice([-12, -5, -4, 3, 4, 7, 12], int(rng.integers(1, 3)), replace=False):
            harmony = voice.sound(pitch * 2 ** (interval / 12), *colour)
            tracks.append((late(harmony, rng.uniform(0, 0.02)), rng.uniform(-0.8, 0.8), rng.uniform(0.2, 0.7)))
    elif style < 0.42:
        formant, *rest = colour
        for _ in range(int(rng.integers(3, 6))):
            interval = rng.choice([-12, 0, 0, 0, 0, 4, 7]) + rng.normal(0, 0.2)
            singer = voice.sound(pitch * 2 ** (interval / 12), formant * rng.uniform(0.92, 1.08), *rest)
            tracks.append((late(singer, rng.uniform(0, 0.06)), rng.uniform(-1, 1), rng.uniform(0.5, 1)))
    return produced(rng, tracks)


def produced(rng, tracks):
    """float32 [s, t] of (mono audio, pan from -1 to 1, gain): mixed, compressed, in a room."""
    length = max(len(audio) for audio, _, _ in tracks)
    out = np.zeros((2, length), np.float32)
    for audio, pan, gain in tracks:
        out[:, : len(audio)] += gain * audio * np.array([[1 - max(0, pan)], [1 + min(0, pan)]])
    out = scipy.signal.sosfilt(scipy.signal.butter(2, 75, "high", fs=SAMPLE_RATE, output="sos"), out).astype(np.float32)
    out = bus.tilt(rng, out)
    if rng.random() < 0.2:
        out = bus.saturate(rng, out)
    if rng.random() < 0.7:
        out *= bus.compression(out / np.abs(out).max(), rng.uniform(-25, -10), rng.uniform(2, 6))
    out = treated(rng, out)
    if rng.random() < 0.3:
        out = bus.echo(rng, out, rng.uniform(0.08, 0.5), rng.uniform(0.1, 0.4))
    if rng.random() < 0.6:
        out = bus.reverb(rng, out, log_uniform(rng, 0.3, 2.5), log_uniform(rng, 0.08, 0.5))
    return out


def keep(audio, path):
    """Peak at -1 dBFS."""
    audio = audio * (29203 / max(np.abs(audio).max(), 1e-6))
    store(np.ascontiguousarray(np.round(audio.T).astype(np.int16)), path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--flite", help="the program, built with its voices")
    parser.add_argument("--jtalk", help="a voice of Open JTalk, which must be installed with its dictionary")
    parser.add_argument("--loose", type=int, default=0, help="variants of every loose voice of the pool")
    parser.add_argument("--of", default="", help="songs whose vocals are taken for loose voices too; never the held-out ones")
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    if held := set(args.of.split(",")) & set(HOLDOUT):
        parser.error(f"held out: {', '.join(sorted(held))}")
    for i in range(args.first, args.songs):
        path = args.out / f"sung-{i:03}" / "vocals.npy"
        if path.exists():
            continue
        rng = np.random.default_rng([555, i])
        if (args.flite or args.jtalk) and i % 3 != 0:
            voice = speaker(rng, args)
            pitch, formant, air = 1.0, rng.uniform(0.88, 1.12), rng.uniform(-4, 8)
        else:
            voice = sinsy(rng, args.seconds)
            low = rng.random() < 0.5
            pitch = 2 ** (rng.uniform(-14, -7) / 12) if low else 2 ** (rng.uniform(-5, 3) / 12)
            formant = rng.uniform(0.78, 0.9) if low else rng.uniform(0.9, 1.12)
            # The voice is dull: 20 dB are missing above 8 kHz.
            air = rng.uniform(6, 24)
        keep(dressed(rng, voice, pitch, formant, rng.random() ** 3 * 0.8, air), path)
    sources = sorted(args.out.glob("loose-*/vocals.npy")) + [args.out / song / "vocals.npy" for song in args.of.split(",") if song]
    for i, source in enumerate(sources):
        audio = np.load(source).mean(1) / 32768
        for variant in range(args.loose):
            path = args.out / f"morph-{source.parent.name.removeprefix('loose-')}-{variant}" / "vocals.npy"
            if path.exists():
                continue
            rng = np.random.default_rng([556, i, variant])
            low = variant % 2 == 0
            pitch = 2 ** (rng.uniform(-13, -7) / 12) if low else 2 ** (rng.uniform(-6, 3) / 12)
            formant = rng.uniform(0.78, 0.9) if low else rng.uniform(0.88, 1.15)
            # In pieces, as envelopes of many minutes are large.
            pieces = [audio[at : at + 30 * SAMPLE_RATE] for at in range(0, len(audio), 30 * SAMPLE_RATE)]
            parts = [dressed(rng, Voice(p, SAMPLE_RATE), pitch, formant, rng.random() ** 3 * 0.6) for p in pieces if len(p) > SAMPLE_RATE and np.abs(p).max() > 0.01]
            keep(np.concatenate(parts, 1), path)


if __name__ == "__main__":
    main()
