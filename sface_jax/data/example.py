"""A labelled picture as one record: the `tf.train.Example` protocol buffer, without tensorflow.

The message is rebuilt here from its published field numbers, so that reading and writing need neither tensorflow
nor tensorflow_datasets; the bytes are those that TFDS writes and reads.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "sface_jax"


class Example(NamedTuple):
    """One record: the encoded picture (PNG or JPEG), its label, and its name "<identity>/<picture>"."""

    image: bytes
    label: int
    name: str


def encode(example: Example) -> bytes:
    """Serialises a record; equal records give equal bytes."""
    message = _message_class()()
    features = message.features.feature
    features["image"].bytes_list.value.append(example.image)
    features["label"].int64_list.value.append(example.label)
    features["name"].bytes_list.value.append(example.name.encode())
    return message.SerializeToString(deterministic=True)


def decode(record: bytes) -> Example:
    """Parses a record.

    Raises:
        ValueError: the record holds no image or no label.
    """
    message = _message_class()()
    message.ParseFromString(record)
    features = message.features.feature
    if "image" not in features or "label" not in features:
        raise ValueError(f"the record has features {sorted(features)}, expected image, label and name")
    name = features["name"].bytes_list.value[0].decode() if "name" in features else ""
    return Example(features["image"].bytes_list.value[0], features["label"].int64_list.value[0], name)


@functools.cache
def _message_class():
    """The class of tensorflow/core/example/{example,feature}.proto, in a pool and a package of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="sface_jax/example.proto", package=_PACKAGE, syntax="proto3")
    lists = {"BytesList": _FIELD.TYPE_BYTES, "FloatList": _FIELD.TYPE_FLOAT, "Int64List": _FIELD.TYPE_INT64}
    for name, kind in lists.items():
        _add(file.message_type.add(name=name), "value", 1, kind, repeated=True)

    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), start=1):
        kind = name.title().replace("_", "")
        _add(feature, name, number, _FIELD.TYPE_MESSAGE, of=kind).oneof_index = 0

    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add(entry, "key", 1, _FIELD.TYPE_STRING)
    _add(entry, "value", 2, _FIELD.TYPE_MESSAGE, of="Feature")
    _add(features, "feature", 1, _FIELD.TYPE_MESSAGE, of="Features.FeatureEntry", repeated=True)

    _add(file.message_type.add(name="Example"), "features", 1, _FIELD.TYPE_MESSAGE, of="Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _add(message, name: str, number: int, kind: int, of: str = "", repeated: bool = False):
    field = message.field.add(name=name, number=number, type=kind)
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    if of:
        field.type_name = f".{_PACKAGE}.{of}"
    return field
