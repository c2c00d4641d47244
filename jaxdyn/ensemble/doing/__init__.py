"""The cells of a plan executed: compiled ahead, driven in pieces, checkpointed, written, shared out among processes."""
