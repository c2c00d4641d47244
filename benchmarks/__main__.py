"""`python -m benchmarks NAME [--quick] [--install-peers]` runs one benchmark, prints its table and writes its JSON."""

import argparse
import importlib
import os
from pathlib import Path

NAMES = ("ensemble", "ntk", "curvature", "infinite", "dag", "catapult", "quadratic", "spikes", "coverage")


def main() -> None:
    """Run the benchmark that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="toy sizes: does it run, not how fast")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: benchmarks/results/NAME.json)")
    parser.add_argument("--install-peers", action="store_true", help="make the environments of peers that are missing")
    options = parser.parse_args()
    if options.install_peers:
        os.environ["JAXDYN_INSTALL_PEERS"] = "1"
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
    if options.name in ("ensemble", "catapult", "spikes"):
        import jaxdyn

        jaxdyn.ensemble.use_cores()
    importlib.import_module(f"benchmarks.{options.name}").main(quick=options.quick, path=options.json)


if __name__ == "__main__":
    main()
