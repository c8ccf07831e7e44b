"""Network pickles are read to the last bit, and nothing in them is run."""

import os
import pickle
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.convert import pickles, stylegan2, unpickling
from sface_jax.core.errors import UserError
from tests.convert import pytorch
from tests.convert.pytorch import Call
from tests.convert.test_stylegan2 import D, G


def write(folder, content, protocol=4):
    path = folder / "network.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pytorch.dumps(content, protocol))
    return path


def test_an_official_pickle_gives_the_networks_of_its_state_dicts(tmp_path):
    g = pytorch.arrays(pytorch.generator_shapes(**G))
    average = pytorch.arrays(pytorch.generator_shapes(**G), seed=1)
    d = pytorch.arrays(pytorch.discriminator_shapes(**D))
    gain = np.float64(0.01) / np.sqrt(6)  # NumPy's numbers are among the attributes
    path = write(
        tmp_path,
        {
            "training_set_kwargs": {"path": "faces.zip", "use_labels": True},
            "G": pytorch.network(g, z_dim=5),
            "D": pytorch.network(d, b4__mbstd__group_size=2, b4__conv__weight_gain=gain),
            "G_ema": pytorch.network(average, z_dim=5, synthesis__num_fp16_res=4, synthesis__b8__conv0__conv_clamp=256),
            "augment_pipe": None,
        },
    )
    networks = pickles.read(path)
    assert list(networks) == ["G", "D", "G_ema"]
    for name, arrays in (("G", g), ("D", d), ("G_ema", average)):
        assert pytorch.same(networks[name].arrays, arrays)
    assert networks["G_ema"].attributes["z_dim"] == 5

    for which, arrays in (("G_ema", average), ("G", g)):
        module, variables = stylegan2.generator_from_pickle(path, which)
        expected = stylegan2.generator_from_state_dict(arrays)
        assert module == expected[0]
        jax.tree.map(np.testing.assert_array_equal, variables, expected[1])
    module, variables = stylegan2.discriminator_from_pickle(path)
    expected = stylegan2.discriminator_from_state_dict(d, mbstd_group_size=2)
    assert module == expected[0]
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def holding(**tensors):
    """A pickle's content whose G has these buffers."""
    return {"G": pytorch.module({"_buffers": OrderedDict(tensors)})}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("Float", np.float32), ("Double", np.float64), ("Half", np.float16), ("BFloat16", jnp.bfloat16)),
        *(("Long", np.int64), ("Int", np.int32), ("Short", np.int16), ("Char", np.int8), ("Byte", np.uint8)),
        ("Bool", np.bool_),
    ],
)
def test_types(tmp_path, kind, dtype, protocol):
    array = np.arange(-3, 3).reshape(2, 3).astype(dtype)
    path = write(tmp_path, holding(x=pytorch.tensor(array, kind)), protocol)
    assert pytorch.same(pickles.read(path)["G"].arrays, {"x": array})


def test_views_of_one_storage(tmp_path):
    base = np.arange(24, dtype=np.float32)
    shared = Call(pytorch.STORAGE, pytorch.storage(base))

    def view(offset, size, stride):
        return Call(pytorch.TENSOR, shared, offset, size, stride, False, OrderedDict())

    views = {
        "transposed": view(0, (6, 4), (1, 6)),
        "part": view(5, (3,), (2,)),
        "number": view(7, (), ()),
        "empty": view(0, (0, 4), (4, 1)),
        "expanded": view(2, (3, 2), (0, 1)),
    }
    arrays = pickles.read(write(tmp_path, holding(**views)))["G"].arrays
    np.testing.assert_array_equal(arrays["transposed"], base.reshape(4, 6).T)
    np.testing.assert_array_equal(arrays["part"], [5, 7, 9])
    np.testing.assert_array_equal(arrays["number"], 7)
    np.testing.assert_array_equal(arrays["expanded"], [[2, 3]] * 3)
    assert arrays["number"].shape == () and arrays["empty"].shape == (0, 4)
    for beyond in (
        view(20, (5,), (1,)),
        view(-1, (2,), (1,)),
        view(0, (4, 7), (7, 1)),
        view(0, (2,), (1, 1)),
        view(0, (6, 10**12), (0, 0)),
    ):
        with pytest.raises(UserError, match="tensor"):
            pickles.read(write(tmp_path, holding(x=beyond)))


def test_modules_of_pytorch_and_what_they_leave_out(tmp_path):
    array = np.ones(2, np.float32)
    state = {
        "_buffers": OrderedDict(kept=pytorch.tensor(array), left=pytorch.tensor(array), none=None),
        "_non_persistent_buffers_set": {"left"},
    }
    plain = Call(pytorch.OTHERS["torch.nn.modules.linear.Linear"])
    plain.call += ({"_parameters": OrderedDict(weight=pytorch.tensor(array)), "_modules": OrderedDict(gone=None)},)
    content = {"G": pytorch.module({**state, "_modules": OrderedDict(list=plain)})}
    for protocol in (2, 4):
        assert list(pickles.read(write(tmp_path, content, protocol))["G"].arrays) == ["kept", "list.weight"]


def attacks(target):
    """Ways to make a pickle create a file: content -> the name that the refusal tells."""
    source = f"open({target!r}, 'w').close()"
    shell = Call(os.system, f"touch {target}")
    buffers = {"_buffers": OrderedDict(x=shell)}
    header = Call(pytorch.STORAGE, pytorch.storage(np.ones(2, np.float32), extra=shell))
    stream = Call(pytorch.STORAGE, pickle.dumps(shell))
    return {
        "alone": (shell, "posix.system"),
        "evaluated": ({"G": Call(eval, source)}, "builtins.eval"),
        "executed": ({"G": Call(exec, source)}, "builtins.exec"),
        "looked up": ({"G": Call(getattr, "", "format")}, "builtins.getattr"),
        "imported": ({"G": Call(__import__, "os")}, "builtins.__import__"),
        "in a module": ({"G": pytorch.module(buffers)}, "posix.system"),
        "in place of a storage": (holding(x=stream), "posix.system"),
        "in a storage's header": (holding(x=header), "posix.system"),
        "as the code of a module": ({"G": Call(pytorch.PERSISTENT, shell)}, "posix.system"),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attack", attacks(""))
def test_a_pickle_that_would_run_code_is_refused(tmp_path, attack, protocol):
    target = tmp_path / "created"
    content, name = attacks(str(target))[attack]
    path = write(tmp_path, content, protocol)
    # Python's own reader falls for those that need none of PyTorch's modules.
    if attack in ("alone", "evaluated", "executed"):
        pickle.loads(path.read_bytes())
        assert target.exists()
        target.unlink()
    name = name.replace("builtins", "__builtin__") if protocol == 2 else name
    with pytest.raises(UserError, match=f"would call {name}"):
        pickles.read(path)
    assert not target.exists()


def test_the_source_of_a_module_is_not_run(tmp_path):
    target = tmp_path / "created"
    source = f"open({str(target)!r}, 'w').close()\nclass Network: pass\n"
    arrays = pytorch.arrays(pytorch.generator_shapes(**G))
    path = write(tmp_path, {"G_ema": pytorch.network(arrays, source)})
    assert source.encode() in path.read_bytes()
    stylegan2.generator_from_pickle(path)
    assert not target.exists()


def test_a_pickle_cannot_change_what_stands_for_its_names(tmp_path):
    stand_ins = (pickles._Module, pickles._EasyDict, unpickling.Inert, unpickling.Tensor, unpickling.Storage)
    before = [vars(stand_in).copy() for stand_in in stand_ins]
    # The operation that sets an object's state, aimed at a class: (None, {"harm": 1}) would set the class's attributes.
    for name in (
        *(b"torch.nn.modules.module\nModule", b"dnnlib.util\nEasyDict", b"numpy\ndtype", b"torch\nFloatStorage"),
        *(b"collections\nOrderedDict", b"builtins\nset", b"torch_utils.persistence\n_reconstruct_persistent_obj"),
    ):
        for state in (b"N}X\x04\x00\x00\x00harmK\x01s\x86", b"}X\x04\x00\x00\x00harmK\x01s"):
            with pytest.raises(UserError):
                pickles.read(write(tmp_path, b"\x80\x02c" + name + b"\n" + state + b"b."))
    assert before == [vars(stand_in).copy() for stand_in in stand_ins]
    for stand_in in pickles._NAMES.values():
        assert not hasattr(stand_in, "harm")


def test_files_that_are_no_such_pickle_are_named(tmp_path):
    whole = pytorch.dumps(holding(x=pytorch.tensor(np.ones(50, np.float32))))
    for cut in (3, 40, len(whole) // 2, len(whole) - 1):
        with pytest.raises(UserError, match="cut short|damaged"):
            pickles.read(write(tmp_path, whole[:cut]))
    short = pytorch.storage(np.ones(5, np.float32))[:-4]
    for content, match in (
        (b"", "not a pickle"),
        (b"PK\x03\x04", "PyTorch archive"),
        (pickle.dumps([1, 2]), "none of the networks"),
        (pickle.dumps({"G": 1}), "none of the networks"),
        (holding(x=Call(pytorch.STORAGE, short)), "cut short"),
        (holding(x=3), "something else"),
        ((Call(pytorch.OTHERS["dnnlib.tflib.network.Network"]),) * 3, "TensorFlow"),
    ):
        with pytest.raises(UserError, match=match):
            pickles.read(write(tmp_path, content))


def test_a_network_that_is_not_there_is_named(tmp_path):
    path = write(tmp_path, holding(x=pytorch.tensor(np.ones(2, np.float32))))
    with pytest.raises(UserError, match="has no G_ema: it holds G"):
        stylegan2.generator_from_pickle(path)


def test_a_module_in_many_places_is_refused(tmp_path):
    module = holding()["G"]
    for _ in range(40):
        module = pytorch.module({"_modules": OrderedDict(a=module, b=module)})
    with pytest.raises(UserError, match="modules"):
        pickles.read(write(tmp_path, {"G": module}))
