"""What `ntk` does with each parameter leaf, in numbers and in print."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LeafRoute:
    """How one leaf enters the kernel.

    Attributes:
        path: of the leaf in the parameter tree; a leaf that is only cut into pieces appears once for each, with its piece.
        shape: of the leaf or piece.
        route: `outer` (factors, no gradient is formed), `formed` (gradients multiplied out from factors), `gradient` (gradients from
            automatic differentiation) or `unused`.
        equations: the equations that use it.
        flops: operations to form and contract its part, beyond the passes through the network.
        bytes: of the factors or gradients of one example.
    """

    path: str
    shape: tuple[int, ...]
    route: str
    equations: str
    flops: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """What `ntk` does for given shapes. `print` it.

    Attributes:
        routes: one entry for each leaf.
        rows: examples of x1 taken at a time.
        columns: examples of x2 taken at a time.
        num_passes: passes forward and backward over a block of examples, `num_outputs` cotangents each.
        num_outputs: k.
    """

    routes: tuple[LeafRoute, ...]
    rows: int
    columns: int
    num_passes: int
    num_outputs: int

    def __str__(self) -> str:
        table = [("leaf", "shape", "route", "used by", "Mflop", "kB/example")]
        for leaf in self.routes:
            row = (f"{leaf.flops / 1e6:.3g}", f"{leaf.bytes / 1e3:.3g}")
            table.append(
                (leaf.path, "×".join(map(str, leaf.shape)) or "scalar", leaf.route, leaf.equations or "-", *row)
            )
        widths = [max(len(row[column]) for row in table) for column in range(6)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        lines.append(
            f"blocks of {self.rows} × {self.columns} examples; {self.num_passes} passes over a block, {self.num_outputs} outputs each"
        )
        return "\n".join(lines)
