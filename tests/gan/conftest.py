"""Reference arrays of StyleGAN2-ADA, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[3] / "shared/fixtures/stylegan2_ada"


class Reference:
    """The arrays, with pictures as NHWC and labels as integers."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.weights = np.load(folder / "weights.npz")

    def network(self, prefix: str) -> dict[str, np.ndarray]:
        names = [name for name in self.weights if name.startswith(f"{prefix}/")]
        return {name[2:]: self.weights[name] for name in names}

    def load(self, file: str) -> dict[str, np.ndarray]:
        return dict(np.load(self.folder / file))


@pytest.fixture(scope="session")
def reference() -> Reference:
    if not FOLDER.exists():
        pytest.skip("reference arrays (../shared/fixtures/stylegan2_ada) are not at hand: parity is NOT tested")
    return Reference(FOLDER)


def nhwc(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 2, 3, 1)


def close(ours: object, theirs: np.ndarray, tolerance: float) -> None:
    """Compares by the largest difference over the largest magnitude."""
    error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    assert error < tolerance, f"error {error:.2e}"
