"""The network of a configuration such as `model.yaml`: the reference `BSRoformer` of lossless-bs-roformer 1.0.0, unchanged."""

import importlib.util
import sys
import types
from pathlib import Path

import yaml

CONFIG = Path(__file__).with_name("model.yaml")


def reference():
    """`BSRoformer`, imported without the package's `__init__`, which needs librosa for Mel-Band models."""
    if "bs_roformer" not in sys.modules:
        spec = importlib.util.find_spec("bs_roformer")
        if spec is None:
            raise SystemExit("bs_roformer is missing: pip install --no-deps lossless-bs-roformer==1.0.0")
        package = types.ModuleType("bs_roformer")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["bs_roformer"] = package
    from bs_roformer.bs_roformer import BSRoformer

    return BSRoformer


def read_config(path=CONFIG):
    return yaml.safe_load(Path(path).read_text())


def build(config):
    arguments = dict(config["model"])
    arguments["freqs_per_bands"] = tuple(arguments["freqs_per_bands"])
    return reference()(**arguments)
