"""What StyleGAN2-ADA for PyTorch leaves on disk, written down once more: names and shapes, and the pickle's format."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import sys
import types
from collections import OrderedDict
from unittest import mock

import numpy as np

FILTER = (np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64).astype(np.float32)
BUFFERS = ("resample_filter", "noise_const", "w_avg")


def generator_shapes(size, classes, z, w, base, most, layers, colours):
    """Name -> shape of a generator's arrays."""
    width = {r: min(base // r, most) for r in (4 << k for k in range(10)) if r <= size}
    shapes = {"mapping.w_avg": (w,)}
    for r, out in width.items():
        block = f"synthesis.b{r}"
        shapes[f"{block}.resample_filter"] = (4, 4)
        if r == 4:
            shapes[f"{block}.const"] = (out, 4, 4)
        for layer, inputs in (("conv0", width.get(r // 2)), ("conv1", out)):
            if inputs:
                name = f"{block}.{layer}"
                shapes |= {f"{name}.weight": (out, inputs, 3, 3), f"{name}.bias": (out,)}
                shapes |= {f"{name}.noise_strength": (), f"{name}.noise_const": (r, r)}
                shapes |= {f"{name}.affine.weight": (inputs, w), f"{name}.affine.bias": (inputs,)}
                shapes[f"{name}.resample_filter"] = (4, 4)
        name = f"{block}.torgb"
        shapes |= {f"{name}.weight": (colours, out, 1, 1), f"{name}.bias": (colours,)}
        shapes |= {f"{name}.affine.weight": (out, w), f"{name}.affine.bias": (out,)}
    return shapes | mapping_shapes(z, classes, w, layers)


def discriminator_shapes(size, classes, base, most, layers, cmap, planes, colours):
    """Name -> shape of a discriminator's arrays."""
    width = {r: min(base // r, most) for r in (4 << k for k in range(10)) if r <= size}
    shapes = {}
    for r in list(width)[:0:-1]:
        here, below = width[r], width[r // 2]
        kernels = {"conv0": (here, here, 3, 3), "conv1": (below, here, 3, 3), "skip": (below, here, 1, 1)}
        if r == size:
            kernels["fromrgb"] = (here, colours, 1, 1)
        for name, shape in kernels.items():
            shapes |= {f"b{r}.{name}.weight": shape, f"b{r}.{name}.resample_filter": (4, 4)}
            if name != "skip":
                shapes[f"b{r}.{name}.bias"] = shape[:1]
        shapes[f"b{r}.resample_filter"] = (4, 4)
    last, outputs = width[4], cmap if classes else 1
    shapes |= {"b4.conv.weight": (last, last + planes, 3, 3), "b4.conv.bias": (last,)}
    shapes |= {"b4.conv.resample_filter": (4, 4), "b4.fc.weight": (last, 16 * last), "b4.fc.bias": (last,)}
    shapes |= {"b4.out.weight": (outputs, last), "b4.out.bias": (outputs,)}
    return shapes | (mapping_shapes(0, classes, cmap, layers) if classes else {})


def mapping_shapes(z, classes, w, layers):
    """Name -> shape of a mapping network's arrays."""
    shapes = {"mapping.embed.weight": (w, classes), "mapping.embed.bias": (w,)} if classes else {}
    inputs = z + (w if classes else 0)
    for layer in range(layers):
        shapes |= {f"mapping.fc{layer}.weight": (w, inputs), f"mapping.fc{layer}.bias": (w,)}
        inputs = w
    return shapes


def arrays(shapes, seed=0):
    """Random arrays of these shapes; filters are the filter."""
    random = np.random.default_rng(seed)
    return {
        name: FILTER if name.endswith("resample_filter") else random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def same(ours, theirs):
    """Whether two state dicts are alike to the last bit."""
    return ours.keys() == theirs.keys() and all(
        (ours[name].dtype, ours[name].shape, ours[name].tobytes()) == (x.dtype, x.shape, x.tobytes())
        for name, x in theirs.items()
    )


class Call:
    """Something that a pickle makes by calling a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def name_of(module, name):
    """A function that pickles as a global of a module that is not installed; only within `pretended_modules`."""

    def function(*args):
        raise AssertionError(f"{module}.{name} was called")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


PERSISTENT = name_of("torch_utils.persistence", "_reconstruct_persistent_obj")
TENSOR = name_of("torch._utils", "_rebuild_tensor_v2")
PARAMETER = name_of("torch._utils", "_rebuild_parameter")
STORAGE = name_of("torch.storage", "_load_from_bytes")
STORAGES = {
    name: name_of("torch", f"{name}Storage")
    for name in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
OTHERS = {
    name: name_of(*name.rsplit(".", 1)) for name in ("torch.nn.modules.linear.Linear", "dnnlib.tflib.network.Network")
}


@contextlib.contextmanager
def pretended_modules():
    """Puts modules with these names where the pickler looks; reading needs none."""
    modules = {}
    for function in (PERSISTENT, TENSOR, PARAMETER, STORAGE, *STORAGES.values(), *OTHERS.values()):
        parts = function.__module__.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            modules.setdefault(name, types.ModuleType(name))
        setattr(modules[name], function.__name__, function)
    with mock.patch.dict(sys.modules, modules):
        yield


def dumps(content, protocol=4):
    """Pickles where the names of PyTorch can be found."""
    with pretended_modules():
        return pickle.dumps(content, protocol)


def storage(array, kind="Float", extra=None):
    """A storage in PyTorch's legacy format; `extra` is pickled in place of the facts of the system."""

    class Id:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", STORAGES[kind], "0", "cpu", array.size, None) if isinstance(obj, Id) else None

    stream = io.BytesIO()
    with pretended_modules():
        for header in (0x1950A86A20F9469CFC6C, 1001, extra or {"little_endian": True}):
            pickle.dump(header, stream, 2)
        Pickler(stream, 2).dump(Id())
        pickle.dump(["0"], stream, 2)
    return stream.getvalue() + struct.pack("<q", array.size) + array.tobytes()


def tensor(array, kind="Float"):
    """A tensor that is the whole of its storage, in C order."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Call(TENSOR, Call(STORAGE, storage(array, kind)), 0, array.shape, strides, False, OrderedDict())


def module(state, source="", name="Network"):
    """A module with that `__dict__`."""
    state = {"training": False, "_parameters": OrderedDict(), "_buffers": OrderedDict(), **state}
    state = {"_modules": OrderedDict(), "_non_persistent_buffers_set": set(), "_backward_hooks": OrderedDict(), **state}
    return Call(PERSISTENT, dict(type="class", version=6, module_src=source, class_name=name, state=state))


def network(named, source="", **attributes):
    """The tree of modules of a state dict; `attributes` by dotted name with __ for the dots."""
    own = {key: value for key, value in attributes.items() if "__" not in key}
    parameters, buffers, children = OrderedDict(), OrderedDict(), {}
    for name, array in named.items():
        child, _, rest = name.partition(".")
        if rest:
            children.setdefault(child, ({}, {}))[0][rest] = array
        elif name in BUFFERS:
            buffers[name] = tensor(array)
        else:
            parameters[name] = Call(PARAMETER, tensor(array), False, OrderedDict())
    for key in attributes.keys() - own.keys():
        child, _, rest = key.partition("__")
        children.setdefault(child, ({}, {}))[1][rest] = attributes[key]
    modules = OrderedDict((child, network(part, source, **told)) for child, (part, told) in children.items())
    return module({**own, "_parameters": parameters, "_buffers": buffers, "_modules": modules}, source)
