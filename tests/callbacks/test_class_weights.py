import math

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from polyloss_lightning import LossProvider, Poly1BCEWithLogitsLoss, Poly1CrossEntropyLoss, Poly1FocalLoss
from polyloss_lightning.callbacks import ClassWeights

COUNTS = [6, 3, 1]


class Data(LightningDataModule):
    class_counts = COUNTS

    def train_dataloader(self):
        target = torch.tensor([0] * 6 + [1] * 3 + [2])
        return DataLoader(TensorDataset(torch.randn(10, 4), target), batch_size=5)


class Model(LossProvider, LightningModule):
    def __init__(self, loss_fn=None):
        super().__init__(loss_fn=loss_fn)
        self.layer = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return self.compute_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(path, model, data=None, callback=None):
    trainer = Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=path, enable_checkpointing=False, callbacks=[callback or ClassWeights()],
    )  # fmt: skip
    trainer.fit(model, data or Data())
    return trainer


def test_balanced_weights_make_every_class_count_the_same_and_have_mean_one():
    weight = ClassWeights("balanced").weight(COUNTS)
    total = weight * torch.tensor(COUNTS)
    torch.testing.assert_close(total, total.mean().expand(3))
    assert weight.mean() == pytest.approx(1)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_numbers_are_those_of_the_paper(beta):
    effective = [math.fsum(beta**i for i in range(count)) for count in COUNTS]  # the geometric series
    inverse = [1 / number for number in effective]
    expected = [value * len(inverse) / sum(inverse) for value in inverse]
    assert ClassWeights("effective_number", beta).weight(COUNTS).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [Poly1CrossEntropyLoss, Poly1FocalLoss])
def test_the_weights_are_those_of_the_loss_and_are_saved_with_it(tmp_path, loss):
    model = Model(loss(epsilon=2.0))
    trainer = fit(tmp_path, model)
    expected = ClassWeights().weight(COUNTS)
    torch.testing.assert_close(model.loss_fn.weight, expected)
    assert "loss_fn.weight" not in model.state_dict()
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = Model.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    torch.testing.assert_close(again.loss_fn.weight, expected)
    fit(tmp_path, model)  # its weights are those of the first run


def test_counts_may_be_a_mapping_from_class_index_to_count(tmp_path):
    model, data = Model(), Data()
    data.class_counts = {2: 1, 0: 6, 1: 3}
    fit(tmp_path, model, data)
    torch.testing.assert_close(model.loss_fn.weight, ClassWeights().weight(COUNTS))


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (Poly1BCEWithLogitsLoss(), "needs a Poly1CrossEntropyLoss or Poly1FocalLoss in the module"),
        (
            Poly1CrossEntropyLoss(weight=[1.0, 2.0, 3.0]),
            "already has class weights, which differ from those of this data: pass no `weight`",
        ),
    ],
)
def test_a_loss_that_cannot_take_them_is_an_error(tmp_path, loss, named):
    with pytest.raises(ValueError, match=named):
        fit(tmp_path, Model(loss))


def test_a_loss_that_is_built_in_setup_is_an_error_that_gives_the_reason(tmp_path):
    class Late(Model):
        def setup(self, stage):
            self.loss_fn = Poly1CrossEntropyLoss()

    with pytest.raises(ValueError, match=r"`setup` or `configure_model` is built too late: build it in `__init__`"):
        fit(tmp_path, Late(torch.nn.CrossEntropyLoss()))


def test_a_module_fitted_on_other_data_needs_its_weights_removed(tmp_path):
    model, other = Model(), Data()
    fit(tmp_path, model)
    other.class_counts = [4, 4, 2]
    with pytest.raises(ValueError, match=r"use a new module \(or set `loss.weight = None`\) for other training data"):
        fit(tmp_path, model, other)
    model.loss_fn.weight = None
    fit(tmp_path, model, other)
    torch.testing.assert_close(model.loss_fn.weight, ClassWeights().weight([4, 4, 2]))


def test_data_without_counts_or_with_an_empty_class_are_an_error(tmp_path):
    class WithoutCounts(Data):
        class_counts = None

    with pytest.raises(ValueError, match="needs a datamodule with the attribute `class_counts`"):
        fit(tmp_path, Model(), WithoutCounts())
    with pytest.raises(ValueError, match=r"every class needs at least 1 training sample, got counts \[3, 0\]"):
        ClassWeights().weight([3, 0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"scheme": "sqrt"}, "`scheme` must be one of .* got 'sqrt'"),
        ({"beta": 1.0}, "`beta` must be at least 0 and below 1, got 1.0"),
        ({"beta": -0.1}, "`beta` must be at least 0 and below 1, got -0.1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        ClassWeights(**arguments)
