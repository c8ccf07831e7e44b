"""One page on a run: faces, accuracy, privacy, training and times, and the same figures as JSON.

    python -m sface_jax.main --config=configs/report.py --workdir=DIR

Needs: DIR with what other stages left; a part whose stage did not run is left out.
Expected: DIR/report/index.html (self-contained, below 3 MB) and DIR/report/summary.json, within seconds; and in the
folder of each recogniser that was trained here its model card, README.md.

    python -m sface_jax.main --config=configs/report.py:quickstart

Needs nothing: the whole quickstart on the embedded faces, in about ten minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the report of a work directory, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("report")
    if variant:
        raise ValueError(f'configs/report.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "report"
    config.title = ""  # headline; "" takes the question that the run answers
    config.show_authentic = False  # show DIR/authentic/preview.png even if its faces may be of real people
    return config
