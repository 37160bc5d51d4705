import json
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import Dataset, Subset, TensorDataset

from polyloss_lightning.data import LongTailDataModule, long_tail_indices
from polyloss_lightning.data.datamodule import class_indices

TARGETS = torch.arange(60) % 3


class Samples(Dataset):
    """Serves (index, target), and keeps its targets under any name or none."""

    def __init__(self, readable=True, **attributes):
        self.__dict__.update(attributes)
        self.readable = readable

    def __len__(self):
        return len(self.__dict__.get("targets", TARGETS))

    def __getitem__(self, index):
        assert self.readable, "the inputs were loaded"
        return torch.tensor([float(index)]), int(TARGETS[index])


class Empty(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch[0].flatten().tolist()))
        return self.layer(batch[0]).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def datamodule(**kwargs):
    data = Samples(targets=TARGETS.tolist())
    return LongTailDataModule(data, data, data, **{"imbalance": 10.0, "seed": 2, "batch_size": 4, **kwargs})


@pytest.mark.parametrize(
    "dataset",
    [
        Samples(readable=False, targets=TARGETS.tolist()),
        Samples(readable=False, labels=TARGETS.numpy()),
        Samples(readable=False, targets=TARGETS[:, None]),
        Samples(readable=False, targets=(TARGETS + 5).tolist(), target_transform=lambda target: target - 5),
        TensorDataset(torch.zeros(60, 2), torch.zeros(60), TARGETS),
        Samples(),
        Samples(labels=["cat", "dog", "owl"]),
        Samples(labels=[0, 1, 2]),
        Samples(labels=["cat"] * 60),
    ],
    ids=[
        "targets",
        "labels",
        "column",
        "target_transform",
        "tensors",
        "iterated",
        "names of the classes",
        "indices of the classes",
        "names of the samples",
    ],
)
def test_targets_are_found_under_any_usual_name(dataset):
    assert torch.equal(class_indices(dataset), TARGETS)
    chosen = [5, 1, 7]
    assert torch.equal(class_indices(Subset(dataset, chosen)), TARGETS[chosen])


def test_only_the_training_part_is_long_tailed():
    data = datamodule()
    inputs = torch.cat([batch[0] for batch in data.train_dataloader()]).flatten().int().tolist()
    assert sorted(inputs) == long_tail_indices(TARGETS, 10.0, seed=2)
    assert data.class_counts == torch.bincount(TARGETS[inputs]).tolist()
    assert sorted(data.class_counts) == [2, 6, 20]
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert torch.cat([batch[0] for batch in loader]).flatten().int().tolist() == list(range(60))


def test_predict_uses_its_own_part_if_there_is_one():
    data = LongTailDataModule(Samples(), Samples(), Samples(), predict := TensorDataset(torch.zeros(3, 1)))
    assert data.predict_dataloader().dataset is predict


def batches(max_epochs, ckpt_path=None):
    model = Empty()
    trainer = Trainer(
        max_epochs=max_epochs,
        limit_val_batches=0,
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, datamodule=datamodule(), ckpt_path=ckpt_path)
    return trainer, model.seen


def test_a_resumed_run_has_the_batches_of_an_uninterrupted_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, whole = batches(3)
    trainer, start = batches(1)
    trainer.save_checkpoint("last.ckpt")
    torch.rand(7)  # the global random state has moved on
    _, rest = batches(3, ckpt_path="last.ckpt")
    assert start + rest == whole
    epochs = [list(chain.from_iterable(batch for epoch, batch in whole if epoch == e)) for e in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({frozenset(epoch) for epoch in epochs}) == 1


def test_workers_are_persistent_if_there_are_any():
    assert not datamodule().train_dataloader().persistent_workers
    assert datamodule(num_workers=2).train_dataloader().persistent_workers


def test_a_wrong_imbalance_is_an_error_of_the_training_part():
    with pytest.raises(ValueError, match="`imbalance` must be"):
        datamodule(imbalance=0.1).train_dataloader()


def test_hyperparameters_are_saved_without_the_data_and_do_not_collide_with_a_modules():
    data = datamodule()
    assert dict(data.hparams) == {"imbalance": 10.0, "seed": 2, "batch_size": 4, "num_workers": 0}
    assert not data._log_hyperparams


def test_data_sets_come_from_yaml(tmp_path, monkeypatch):
    cli = pytest.importorskip("lightning.pytorch.cli")
    pytest.importorskip("torchvision")
    transform = {"class_path": "torchvision.transforms.ToTensor"}
    arguments = {"size": 40, "num_classes": 2, "image_size": [1, 4, 4], "transform": transform}
    fake = {"class_path": "torchvision.datasets.FakeData", "init_args": arguments}
    config = tmp_path / "data.yaml"
    data = {"train": fake, "val": fake, "test": fake, "imbalance": 5, "batch_size": 64}
    config.write_text(json.dumps({"seed_everything": 0, "data": data}))
    monkeypatch.setattr("sys.argv", ["train", "--config", str(config)])
    data = cli.LightningCLI(Empty, LongTailDataModule, run=False).datamodule
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape[1:] == (1, 4, 4)
    assert torch.bincount(targets).tolist() == data.class_counts


def test_a_data_set_without_counts_has_no_such_attribute():
    # What a monitor does with whatever datamodule it meets.
    assert getattr(SimpleNamespace(), "class_counts", None) is None
    assert sum(getattr(datamodule(), "class_counts", None)) == 28


def messages(caplog):
    return [record.getMessage() for record in caplog.records if "training samples" in record.getMessage()]


def test_by_default_every_training_sample_is_kept(caplog):
    targets = torch.tensor([0] * 12 + [1] * 4 + [2])
    data = LongTailDataModule(TensorDataset(torch.zeros(17, 1), targets), Samples(), Samples())
    assert data.class_counts == [12, 4, 1]
    assert data.num_classes == 3
    assert data.class_names == ["0", "1", "2"]
    assert not messages(caplog)


def test_one_line_reports_how_many_samples_of_each_class_are_kept(caplog):
    dataset = Samples(targets=[0] * 12 + [1] * 4 + [2], classes=["cat", "dog", "owl"])
    with caplog.at_level("INFO"):
        data = LongTailDataModule(dataset, Samples(), Samples(), imbalance=1.0)
        assert data.class_counts == [1, 1, 1]
    (message,) = messages(caplog)
    assert message == "imbalance 1 keeps 3 of 17 training samples: cat: 1 of 12, dog: 1 of 4, owl: 1 of 1"
    assert data.class_names == ["cat", "dog", "owl"]


def test_an_imbalance_that_drops_nothing_reports_nothing(caplog):
    with caplog.at_level("INFO"):
        assert datamodule(imbalance=1.0).class_counts == [20, 20, 20]
    assert not messages(caplog)


def test_a_class_that_occurs_in_no_training_sample_is_counted_as_zero():
    dataset = Samples(targets=[0, 0, 1], classes=["cat", "dog", "owl"])
    data = LongTailDataModule(dataset, dataset, dataset)
    assert data.class_counts == [2, 1, 0]


def test_a_class_without_samples_cannot_be_made_long_tailed():
    dataset = Samples(targets=[0, 0, 1], classes=["cat", "dog", "owl"])
    with pytest.raises(ValueError, match=r"every class needs at least 1 sample, got counts \[2, 1, 0\]"):
        _ = LongTailDataModule(dataset, dataset, dataset, imbalance=2.0).class_counts


@pytest.mark.parametrize(
    ("targets", "error", "named"),
    [
        (torch.zeros(60), TypeError, "`targets` must be class indices .* got dtype torch.float32"),
        (torch.full((60,), -1), ValueError, "`targets` must be class indices of at least 0, got -1"),
        (torch.eye(60).long(), ValueError, r"`targets` must have shape \(n\), .* got \(60, 60\)"),
        (torch.tensor([]).long(), ValueError, r"`targets` must have shape \(n\), .* got \(0,\)"),
    ],
)
def test_targets_that_are_not_class_indices_are_an_error(targets, error, named):
    dataset = TensorDataset(torch.zeros(len(targets), 1), targets)
    with pytest.raises(error, match=named):
        _ = LongTailDataModule(dataset, dataset, dataset).class_counts
