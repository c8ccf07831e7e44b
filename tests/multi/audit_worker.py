"""Stage privacy: `... audit_worker WORKDIR`; tells what it wrote."""

import json
import sys

import jax
from etils import epath

from configs import privacy
from sface_jax.core import cluster, files, mesh
from sface_jax.privacy import audit


def main() -> None:
    cluster.join()
    workdir = epath.Path(sys.argv[1])
    config = privacy.get_config()
    config.update({key: config[key].replace("{workdir}", str(workdir)) for key in ("authentic", "synthetic", "output")})
    config.update({"matchers": ("matcher", "second"), "batch_size": 24, "planted": 5, "rates": (0.1,)})
    config.update({"exclude_rate": 0.1, "filtered": str(workdir / "filtered"), "released": ("second",)})
    headline = audit.run(config, workdir)
    mesh.barrier("written")
    told = files.read_json(workdir / "privacy" / "audit.json")
    told["remedy"].pop("filtered")
    kept = sorted(path.name for path in (workdir / "filtered").iterdir())
    print(json.dumps({"devices": jax.device_count(), "headline": headline["level"], "told": told, "kept": kept}))


if __name__ == "__main__":
    main()
