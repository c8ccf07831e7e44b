"""Compares what runs on other devices or processes told."""


def close(a, b):
    """Counts and words are equal, other numbers to rounding."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            close(one, other)
    elif isinstance(a, float):
        assert abs(a - b) < 1e-5
    else:
        assert a == b
