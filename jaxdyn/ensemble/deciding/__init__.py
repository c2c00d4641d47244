"""What a sweep will run, cell by cell: axes, cost, memory, plan. Compiles a cell where only that tells what it holds; runs none."""
