"""The value at the best checkpoint, also of a run that was resumed."""

from types import SimpleNamespace

from polyloss_lightning.callbacks.run_metrics import RunMetrics
from polyloss_lightning.callbacks.trainer.at_best import AtBest
from polyloss_lightning.cli.best_validation import BestValidation


def trainer(path, score, **metrics):
    checkpoint = SimpleNamespace(best_model_path=path, best_model_score=score)
    return SimpleNamespace(checkpoint_callback=checkpoint, callback_metrics=metrics, sanity_checking=False)


def test_the_value_before_a_new_best_checkpoint_is_kept():
    at_best = AtBest("nothing")
    at_best.start(trainer("", None))
    at_best.add(trainer("", None), "first")
    at_best.add(trainer("1.ckpt", 0.5), "second")
    at_best.look(trainer("1.ckpt", 0.5))
    assert (at_best.found, at_best.at_best, at_best.latest) == (True, "first", "second")


def test_the_best_checkpoint_of_the_run_that_is_resumed_is_not_a_new_one():
    old = trainer("old.ckpt", 0.9)
    at_best = AtBest("nothing")
    at_best.start(old)
    at_best.add(old, "first")
    at_best.look(old)
    assert (at_best.found, at_best.latest) == (False, "first")
    at_best.look(trainer("new.ckpt", 0.95))
    assert (at_best.found, at_best.at_best) == (True, "first")


def test_a_resumed_run_without_a_better_epoch_has_the_metrics_of_its_last_one():
    old = trainer("old.ckpt", 0.9, **{"val/pt": 0.25})
    validation, metrics = BestValidation(), RunMetrics()
    for callback in (validation, metrics):
        callback.on_train_start(old, None)
        callback.on_validation_end(old, None)
    assert validation.results(old) == ({"val/pt": 0.25}, {}, "last epoch")
    assert metrics.best(old) == {"val/pt": 0.25}
