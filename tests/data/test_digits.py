import builtins
import warnings

import pytest
import torch
from lightning.pytorch import Trainer

from polyloss_lightning.data import DigitsDataModule
from polyloss_lightning.models import ImageClassifier, SmallCNN

sklearn_datasets = pytest.importorskip("sklearn.datasets")


def rows(dataset):
    return {image.numpy().tobytes() for image in dataset[:][0]}


def test_the_parts_are_the_digits_without_overlap():
    digits = DigitsDataModule(imbalance=1.0, seed=3)
    images, targets = (
        torch.cat(tensors) for tensors in zip(digits.train[:], digits.val[:], digits.test[:], strict=True)
    )
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    original = sklearn_datasets.load_digits()
    pairs = sorted((image.tobytes(), int(t)) for image, t in zip(original.images / 16, original.target, strict=True))
    assert sorted((i.double().numpy().tobytes(), int(t)) for i, t in zip(images[:, 0], targets, strict=True)) == pairs
    assert len(rows(digits.train) | rows(digits.val) | rows(digits.test)) == 1797


def test_validation_and_test_are_balanced_and_training_has_the_given_imbalance():
    digits = DigitsDataModule(imbalance=50.0, seed=1, val_per_class=30, test_per_class=40)
    assert torch.bincount(digits.val[:][1]).tolist() == [30] * 10
    assert torch.bincount(digits.test[:][1]).tolist() == [40] * 10
    assert sorted(digits.class_counts)[:: len(digits.class_counts) - 1] == [2, 174 - 70]


def test_imbalance_one_is_balanced():
    assert DigitsDataModule(imbalance=1.0).class_counts == [102] * 10


def test_the_seed_determines_the_parts_and_the_rare_class():
    one, same, other = DigitsDataModule(seed=0), DigitsDataModule(seed=0), DigitsDataModule(seed=1)
    assert torch.equal(one.val[:][0], same.val[:][0])
    assert one.class_counts == same.class_counts
    assert not torch.equal(one.val[:][0], other.val[:][0])
    assert one.class_counts != other.class_counts
    first, again = (next(iter(data.train_dataloader()))[1] for data in (one, same))
    assert torch.equal(first, again)


@pytest.mark.parametrize("parts", [(0, 36), (36, 0), (100, 74)])
def test_parts_that_do_not_fit_are_named(parts):
    with pytest.raises(ValueError, match=rf"together at most 173, got {parts[0]} and {parts[1]}"):
        DigitsDataModule(val_per_class=parts[0], test_per_class=parts[1])


def test_a_missing_extra_is_named_in_one_line(monkeypatch):
    real = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(
        ImportError, match=r'^DigitsDataModule needs scikit-learn: pip install "polyloss-lightning\[demo\]"$'
    ):
        DigitsDataModule()


def test_no_advice_to_add_workers_for_data_in_memory(monkeypatch):
    connector = "lightning.pytorch.trainer.connectors.data_connector.suggested_max_num_workers"
    monkeypatch.setattr(connector, lambda _: 16)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        digits = DigitsDataModule()
        trainer = Trainer(fast_dev_run=True, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
        trainer.fit(ImageClassifier(SmallCNN(width=4), 10), datamodule=digits)
    assert not [warning for warning in seen if "workers" in str(warning.message)]


def test_hyperparameters_contain_what_rebuilds_the_parts(tmp_path):
    digits = DigitsDataModule(imbalance=7.0, seed=5, val_per_class=20)
    trainer = Trainer(
        max_epochs=1, limit_val_batches=0, limit_train_batches=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(ImageClassifier(SmallCNN(width=4), 10), datamodule=digits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = DigitsDataModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.class_counts == digits.class_counts
    assert torch.equal(again.test[:][0], digits.test[:][0])


def test_a_checkpoint_of_another_split_is_reported():
    saved = DigitsDataModule(seed=3).state_dict()
    DigitsDataModule(imbalance=None, seed=3).load_state_dict(saved)  # warnings are errors
    with pytest.warns(UserWarning, match=r"another split \(seed 3, val_per_class.*, and not seed 0, val_per_class 36"):
        DigitsDataModule().load_state_dict(saved)
