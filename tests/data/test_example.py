from hypothesis import given
from hypothesis import strategies as st

from sface_jax.data import example
from sface_jax.data.example import Example

EXAMPLES = st.builds(Example, st.binary(max_size=50), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))


@given(EXAMPLES)
def test_decode_inverts_encode(item):
    assert example.decode(example.encode(item)) == item


@given(EXAMPLES)
def test_bytes_are_a_tf_example(item):
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example.FromString(example.encode(item))
    assert message.features.feature["image"].bytes_list.value[0] == item.image
    assert message.features.feature["label"].int64_list.value[0] == item.label
    assert message.features.feature["name"].bytes_list.value[0] == item.name.encode()
    assert example.decode(message.SerializeToString()) == item
