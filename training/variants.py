"""Real songs played in other keys and tempi, so that few songs are not learnt by heart: stems of `<song>` as `variant-<song>-<i>`.

    python variants.py --out POOL --songs hydrogen,lithium,potassium,rubidium,francium

Key and tempo change apart from each other (Rubber Band, whose precise mode keeps the stems aligned), drums less in key than
the rest. The voice gets another throat as well: shorter for a higher key, longer for a lower one. What exists is left as it is.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import scipy.io.wavfile

from prepare import HOLDOUT, SAMPLE_RATE, STEMS, store, unfinished

# Semitones of the drums, of bass and other, of the voice; tempo.
VARIANTS = ((-1.5, -4, -6, 0.9), (0.8, 2, 1, 1.12), (-0.7, -2, -3, 1.06), (1.5, 5, 3, 0.95), (-3, 3, -4, 0.85))


def played(audio, semitones, tempo, formant):
    """int16 [t, s] -> int16, in another key and tempo; `formant` keeps the throat as it was."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.wav", Path(folder) / "b.wav"
        scipy.io.wavfile.write(source, SAMPLE_RATE, audio)
        options = ["--tempo", str(tempo), "--pitch", str(semitones), *(["--formant"] if formant else [])]
        subprocess.run(["rubberband", "--fast", "--quiet", *options, source, target], check=True, capture_output=True)
        return scipy.io.wavfile.read(target)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--songs", required=True, help="comma-separated; never the held-out ones")
    args = parser.parse_args()
    if held := set(args.songs.split(",")) & set(HOLDOUT):
        parser.error(f"held out: {', '.join(sorted(held))}")
    for i, (drums, notes, voice, tempo) in enumerate(VARIANTS):
        for song in args.songs.split(","):
            folder = args.out / f"variant-{song}-{i}"
            if folder.exists():
                continue
            temporary = unfinished(folder)
            for stem in STEMS:
                source = args.out / song / f"{stem}.npy"
                if source.exists():
                    semitones = dict(drums=drums, vocals=voice).get(stem, notes)
                    # A voice moved far keeps its throat half the time: both are singers.
                    kept = stem == "vocals" and i % 2 == 0
                    store(played(np.load(source), semitones, tempo, kept), temporary / f"{stem}.npy")
            temporary.rename(folder)


if __name__ == "__main__":
    main()
