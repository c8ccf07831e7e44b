"""sface_jax: labelled synthetic face data, recognisers trained on it, and an audit of what it gives away."""

__version__ = "0.1.0"
