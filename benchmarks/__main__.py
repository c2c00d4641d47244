"""`python -m benchmarks NAME [--quick] [--install-peers]` runs one benchmark, prints its table and writes its JSON.

`python -m benchmarks accelerator [--minutes 9] [--out DIR] [--tiny]` tries jaxdyn on an accelerator, in sections with caps on their time.
"""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

NAMES = (
    "ensemble",
    "ntk",
    "curvature",
    "infinite",
    "dag",
    "catapult",
    "quadratic",
    "spikes",
    "coverage",
    "growth",
    "accelerator",
)


def main() -> None:
    """Run the benchmark that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="toy sizes: does it run, not how fast")
    parser.add_argument("--json", type=Path, help="where the JSON goes (default: benchmarks/results/NAME.json)")
    parser.add_argument("--install-peers", action="store_true", help="make the environments of peers that are missing")
    parser.add_argument("--minutes", type=float, help="accelerator: the time for all (default: 9, with --tiny 4)")
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"), help="accelerator: folder of the results")
    parser.add_argument("--tiny", action="store_true", help="accelerator: toy sizes, under two minutes on a CPU")
    options = parser.parse_args()
    if options.name == "accelerator":
        from benchmarks import accelerator

        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # sections end with the driver
        is_tiny = options.tiny or options.quick
        minutes = options.minutes or (4.0 if is_tiny else 9.0)
        sys.exit(not accelerator.main(minutes=minutes, out=options.out, tiny=is_tiny))
    if options.install_peers:
        os.environ["JAXDYN_INSTALL_PEERS"] = "1"
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
    if options.name in ("ensemble", "catapult", "spikes", "growth"):
        import jaxdyn

        jaxdyn.ensemble.use_cores()
    importlib.import_module(f"benchmarks.{options.name}").main(quick=options.quick, path=options.json)


if __name__ == "__main__":
    main()
