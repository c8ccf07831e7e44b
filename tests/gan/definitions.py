"""Resampling and convolutions by their definitions, in NumPy and in general: slow, NCHW, and proven by the reference.

What the package computes in faster ways, for the one filter it uses, is compared with these.
"""

import math

import numpy as np


def pair(value):
    """[x, y] of a number or of two."""
    return tuple(value) if np.ndim(value) else (value, value)


def sides(padding):
    """[left, right, top, bottom] of one number, of [x, y] or of four."""
    if np.ndim(padding) and len(padding) == 4:
        return tuple(padding)
    x, y = pair(padding)
    return x, x, y, y


def padded(x, padding):
    left, right, top, bottom = padding
    x = np.pad(x, [(0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))])
    height, width = x.shape[2:]
    return x[:, :, max(-top, 0) : height - max(-bottom, 0), max(-left, 0) : width - max(-right, 0)]


def two_dimensional(taps):
    taps = np.ones((1, 1)) if taps is None else taps
    return np.outer(taps, taps) if taps.ndim == 1 else taps


def upfirdn2d(x, taps, up=1, down=1, padding=0, flip_filter=False, gain=1.0):
    (up_x, up_y), (down_x, down_y) = pair(up), pair(down)
    n, c, height, width = x.shape
    spread = np.zeros((n, c, height * up_y, width * up_x), np.float64)
    spread[:, :, ::up_y, ::up_x] = x
    spread = padded(spread, sides(padding))
    taps = two_dimensional(taps)
    taps = taps if flip_filter else taps[::-1, ::-1]
    height, width = spread.shape[2] - taps.shape[0] + 1, spread.shape[3] - taps.shape[1] + 1
    out = sum(
        taps[i, j] * spread[:, :, i : i + height, j : j + width] for i in range(len(taps)) for j in range(taps.shape[1])
    )
    return gain * out[:, :, ::down_y, ::down_x]


def _added(taps, up, down):
    """Padding that keeps the picture in place: [left, right, top, bottom]."""
    (up_x, up_y), (down_x, down_y) = pair(up), pair(down)
    height, width = two_dimensional(taps).shape

    def of(k, up, down):
        if up > 1:
            return (k + up - 1) // 2, (k - up) // 2
        return ((k - down + 1) // 2, (k - down) // 2) if down > 1 else (k // 2, (k - 1) // 2)

    return *of(width, up_x, down_x), *of(height, up_y, down_y)


def filter2d(x, taps, padding=0, flip_filter=False, gain=1.0):
    return resampled(x, taps, 1, 1, padding, flip_filter, gain)


def upsample2d(x, taps, up=2, padding=0, flip_filter=False, gain=1.0):
    return resampled(x, taps, up, 1, padding, flip_filter, gain * math.prod(pair(up)))


def downsample2d(x, taps, down=2, padding=0, flip_filter=False, gain=1.0):
    return resampled(x, taps, 1, down, padding, flip_filter, gain)


def resampled(x, taps, up, down, padding, flip_filter, gain):
    total = [a + b for a, b in zip(sides(padding), _added(taps, up, down), strict=True)]
    return upfirdn2d(x, taps, up, down, total, flip_filter, gain)


def correlated(x, w, stride=1):
    """x [n, c, h, w] and w [d, c, k, k], no padding."""
    height, width = x.shape[2] - w.shape[2] + 1, x.shape[3] - w.shape[3] + 1
    out = sum(
        np.einsum("nchw,dc->ndhw", x[:, :, i : i + height, j : j + width], w[:, :, i, j])
        for i in range(w.shape[2])
        for j in range(w.shape[3])
    )
    return out[:, :, ::stride, ::stride]


def conv2d_resample(x, w, taps, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    w = w if flip_weight else w[:, :, ::-1, ::-1]
    total = list(sides(padding))
    if up > 1:
        total = [a + b for a, b in zip(total, _added(taps, up, 1), strict=True)]
    if down > 1:
        total = [a + b for a, b in zip(total, _added(taps, 1, down), strict=True)]
    if up > 1 or down == 1:
        x = upfirdn2d(x, taps if up > 1 else None, up, 1, total, flip_filter, up**2)
    if down > 1:
        x = upfirdn2d(x, taps, 1, 1, total if up == 1 else 0, flip_filter)
    parts = [correlated(a, b, down) for a, b in zip(np.split(x, groups, 1), np.split(w, groups, 0), strict=True)]
    return np.concatenate(parts, 1)


def modulated_conv2d(x, w, styles, noise=None, up=1, down=1, padding=0, taps=None, demodulate=True, flip_weight=True):
    out = []
    for sample, style in zip(x, styles, strict=True):
        own = w * style[None, :, None, None]
        if demodulate:
            own = own / np.sqrt(np.square(own).sum((1, 2, 3), keepdims=True) + 1e-8)
        out.append(conv2d_resample(sample[None], own, taps, up, down, padding, 1, flip_weight)[0])
    return np.stack(out) + (0 if noise is None else noise)


def bias_act(x, b, act="linear", alpha=None, gain=None, clamp=None):
    x = x + b[None, :, None, None]
    x = {"linear": x, "relu": np.maximum(x, 0), "lrelu": np.where(x >= 0, x, (alpha or 0.2) * x)}[act]
    x = x * (gain if gain is not None else 1 if act == "linear" else math.sqrt(2))
    return x if clamp is None else np.clip(x, -clamp, clamp)
