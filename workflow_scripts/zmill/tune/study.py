"""The study that the trials of a search share: a journal on disk, which any number of jobs append to.

Optuna's journal is one JSON line per operation, in a file that only grows; a job reads what the others wrote. A trial
belongs to a numbered place of the search's budget, for good: the job that finds its place's trial unfinished goes on
with it, so that a kill neither loses a trial nor adds one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from zmill.catalog.lock import NoLocks, take
from zmill.config import Dimension
from zmill.models.base import Settings
from zmill.tune.space import label, type_of

RANDOM_TRIALS = 10
"""Trials before the sampler learns from those that ended."""
COMPARED = 5
"""Trials that must have ended before another one is given up, and of which three reached the same epoch."""
SPARED_EPOCHS = 4
"""Epochs after which a trial may be given up at the earliest."""
PLACE = "place"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TuneError(Exception):
    """A search cannot go on; the message says why and what to do."""


class Lock(JournalFileOpenLock):
    """The kernel's lock on a file beside the journal: it is gone with the process that held it, however that ended.

    Optuna's own locks are files, which outlive a killed process and are broken by whoever has waited long enough.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._held = -1

    def acquire(self) -> bool:
        """Wait for the lock, then cut off what a writer that died or found the disk full left of a line."""
        self._held = os.open(self.journal.with_name(self.journal.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            take(self._held, self.journal, wait=True)
        except NoLocks as error:
            self.release()
            raise TuneError(str(error)) from None
        _cut_torn_line(self.journal)
        return True

    def release(self) -> None:
        """Let others append."""
        os.close(self._held)


def _cut_torn_line(journal: Path) -> None:
    with open(journal, "r+b") as handle:
        if not handle.seek(0, 2):
            return
        handle.seek(-1, 2)
        if handle.read(1) != b"\n":
            handle.seek(0)
            handle.truncate(handle.read().rfind(b"\n") + 1)


def open_study(journal: Path, name: str, seed: int, place: int) -> optuna.Study:
    """The study of a name in a journal, made where there is none.

    Proposals are by a tree-structured Parzen estimator (TPE; Bergstra et al. 2011) of all settings together. Trials
    that are still running count as bad ones, so that jobs side by side try different things; every place of the budget
    draws from its own seed.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal), Lock(journal)))
    own_seed = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(
        seed=own_seed, multivariate=True, constant_liar=True, n_startup_trials=RANDOM_TRIALS
    )
    pruner = optuna.pruners.MedianPruner(COMPARED, SPARED_EPOCHS, n_min_trials=3)
    return optuna.create_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner, load_if_exists=True)


def begun(study: optuna.Study, place: int) -> bool:
    """Whether a place of the budget has its trial."""
    return _at(study, place) is not None


def claim(study: optuna.Study, place: int, space: dict[str, BaseDistribution], fixed: dict[str, Any] | None) -> Trial:
    """The trial of a place of the budget, begun where there is none yet, with what it is to try.

    fixed : what is tried where nothing is to be proposed. A proposal, once made, stays the same.
    """
    if not begun(study, place):
        chosen = {name: space[name] for name in fixed or {}}
        study.add_trial(
            create_trial(state=TrialState.RUNNING, params=fixed or {}, distributions=chosen, user_attrs={PLACE: place})
        )
    found = _at(study, place)
    assert found is not None
    trial = Trial(study, found._trial_id)
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            trial.suggest_categorical(name, values.choices)
        elif isinstance(values, IntDistribution):
            trial.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
        elif isinstance(values, FloatDistribution):
            trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
    return trial


def _at(study: optuna.Study, place: int) -> FrozenTrial | None:
    """The first trial of a place: should two jobs begin one at the same moment, both take the same."""
    return next((trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(PLACE) == place), None)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to an end, of whatever kind."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def distributions(space: Mapping[str, Dimension], own: type[Settings]) -> dict[str, BaseDistribution]:
    """The space of a model's settings in Optuna's words."""
    found: dict[str, BaseDistribution] = {}
    for setting, dimension in space.items():
        if dimension.choices is not None:
            found[setting] = CategoricalDistribution([label(choice) for choice in dimension.choices])
            continue
        assert dimension.low is not None and dimension.high is not None
        if type_of(own, setting) is int:
            step = int(dimension.step or 1)
            found[setting] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
        else:
            found[setting] = FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return found
