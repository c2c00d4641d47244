"""The time evolution of one network."""

from jaxdyn.dynamics.record import Record, Snapshot, Timetable, pieces, record, timetable
from jaxdyn.dynamics.schedule import Schedule, at, every, log_spaced
from jaxdyn.dynamics.training import Training, Variable, advance, anchored, init, observe, train, variables
from jaxdyn.dynamics.trajectory import State, Trajectory

__all__ = [
    "Record",
    "Schedule",
    "Snapshot",
    "State",
    "Timetable",
    "Training",
    "Trajectory",
    "Variable",
    "advance",
    "anchored",
    "at",
    "every",
    "init",
    "log_spaced",
    "observe",
    "pieces",
    "record",
    "timetable",
    "train",
    "variables",
]
