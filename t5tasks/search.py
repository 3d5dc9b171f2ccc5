# SPDX-License-Identifier: Apache-2.0
"""A space of settings in; trials that Optuna draws, runs of a sweep whose validation scores decide what is drawn next.

A sweep() that returns `cells.search(...)` is run so. The study is search.db in the workdir (SQLite): a search that was
killed goes on with the trials that it was at. A trial's value is its best validation score, never one of the test
records; the same scores, as they come, decide what is pruned. Needs optuna, of the extra `sweep`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from t5tasks import cells, configuration, tasks
from t5tasks.cells import Cell, Range, Search
from t5tasks.schedule import DONE, PRUNED, Schedule


def run(space: Search, path: str, flags: Mapping[str, Any], schedule: Schedule, show: Callable[[], None]) -> None:
    """Runs trials until there are as many as the search asks for; failed ones count.

    Raises:
      ValueError: optuna is not installed, or a setting of the space that is none.
    """
    optuna = require()
    config = configuration.read(path)
    task = tasks.get(config.task.name, config.task)
    schedule.places.folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=cells.digest([configuration.plain(config), dict(flags), repr(space)]), load_if_exists=True,
        storage=f"sqlite:///{schedule.places.folder / 'search.db'}",
        direction="maximize" if task.higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=space.seed),
        pruner=optuna.pruners.MedianPruner() if space.prune else optuna.pruners.NopPruner())
    begun = _earlier(study, optuna, space, path, flags, schedule)
    running: dict[str, list[Any]] = {}
    distributions = {name: _distribution(optuna, values) for name, values in space.space.items()}
    while begun < space.trials or running:
        while begun < space.trials and len(running) < schedule.limit:
            trial = study.ask(fixed_distributions=distributions)
            cell = cell_of(trial.number, trial.params, space, path, flags)
            begun += 1
            if cell.id not in schedule.cells:
                schedule.add(cell)
            running.setdefault(cell.id, []).append(trial)
        schedule.step()
        show()
        for id in list(running):
            if _settled(schedule, schedule.cells[id], running[id], study, optuna, task.metric, task.higher_is_better):
                del running[id]


def require() -> Any:
    """The package, quiet; ValueError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ValueError("a search needs optuna, which is not installed: pip install 't5tasks[sweep]', or list the "
                         "cells in sweep()") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def cell_of(number: int, parameters: Mapping[str, Any], space: Search, path: str, flags: Mapping[str, Any]) -> Cell:
    """The cell of a trial; ValueError as `cells.resolve`."""
    told = ", ".join(f"{name.rpartition('.')[2]}={f'{value:.3g}' if isinstance(value, float) else value}"
                     for name, value in parameters.items())
    return cells.resolve(path, {**space.fixed, **parameters}, flags, f"trial {number}: {told}")


def _earlier(study: Any, optuna: Any, space: Search, path: str, flags: Mapping[str, Any], schedule: Schedule) -> int:
    """Adds the cells of earlier trials that are over, puts those that were interrupted first; how many are over."""
    states, over = optuna.trial.TrialState, 0
    for trial in study.get_trials(deepcopy=True):
        if trial.state == states.RUNNING:
            study.tell(trial.number, state=states.FAIL)
            study.enqueue_trial(trial.params)
        elif trial.state in (states.COMPLETE, states.PRUNED):
            over += 1
            schedule.add(cell_of(trial.number, trial.params, space, path, flags),
                         PRUNED if trial.state == states.PRUNED else "")
    return over


def _settled(schedule: Schedule, cell: Cell, trials: list[Any], study: Any, optuna: Any, metric: str, higher: bool
             ) -> bool:
    """Tells the study how the trials of a cell stand; whether they are over."""
    state = schedule.state(cell)
    scores = {entry["step"]: entry[metric] for entry in schedule.places.metrics(cell, "validation")}
    if not state:
        for step, score in scores.items():
            trials[0].report(score, step)  # again is no harm: the first report of a step stays
        if scores and trials[0].should_prune():
            schedule.prune(cell)
            state = PRUNED
        else:
            return False
    for trial in trials:
        if state == DONE and scores:
            study.tell(trial, (max if higher else min)(scores.values()))
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED if state == PRUNED
                       else optuna.trial.TrialState.FAIL)
    return True


def _distribution(optuna: Any, values: Range) -> Any:
    if values.options:
        return optuna.distributions.CategoricalDistribution(values.options)
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)

