"""The time evolution of one network."""

from jaxdyn.dynamics.catapults import CatapultState, catapults
from jaxdyn.dynamics.record import Record, Snapshot, Timetable, pieces, record, timetable
from jaxdyn.dynamics.schedule import Schedule, at, every, log_spaced
from jaxdyn.dynamics.training import Training, Variable, advance, anchored, batch_key, init, observe, train, variables
from jaxdyn.dynamics.trajectory import State, Trajectory

__all__ = [
    "CatapultState",
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
    "batch_key",
    "catapults",
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
