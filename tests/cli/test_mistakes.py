"""A mistake in the command line ends in one line that names it, wherever it comes out."""

from pathlib import Path

import pytest
import torch

from polyloss_lightning.cli import main

CALLBACK = "--trainer.callbacks"
SCHEDULER = f"{CALLBACK}+=EpsilonScheduler {CALLBACK}.schedule=ConstantSchedule {CALLBACK}.schedule.value=1.0"
STOPPING, SWA = f"{CALLBACK}+=EarlyStopping", f"{CALLBACK}+=StochasticWeightAveraging"
SAVING, MONITOR = f"{CALLBACK}+=ModelCheckpoint", f"{CALLBACK}=PolynomialTermMonitor"
OVERRIDE = f"{CALLBACK}+=PolyLossOverride"
CSV, ONE_CYCLE = "--trainer.logger=CSVLogger --trainer.logger.save_dir", "--model.lr_scheduler=OneCycleLR"

# What to add to a right command, and what the line must contain.
USUAL = {
    "--trainer.accelerator=gpu": "gpu",
    "--trainer.devices=two": "devices",
    "--ckpt_path=text.ckpt": "`ckpt_path` is not a checkpoint",
    f"{CSV}=file": "file",
    f"{STOPPING} {CALLBACK}.monitor=val/nothing": "val/nothing",
    "--trainer.accumulate_grad_batches=0": "`trainer.accumulate_grad_batches` must be at least 1, got 0",
    "--model.optimizer=SGD --model.optimizer.lr=-1": "Invalid learning rate: -1",
    f"{SCHEDULER} {CALLBACK}.loss=head.loss_fn": "head.loss_fn",
    "--seed_everything=-5": "-5",
}
SELDOM = {
    "--trainer.devices=0": "0",
    "--trainer.devices=3.5": "devices",
    "--trainer.accelerator=quantum": "quantum",
    "--trainer.strategy=nothing": "nothing",
    "--trainer.strategy=fsdp": "fsdp",
    "--trainer.num_nodes=0": "num_nodes",
    "--trainer.precision=17": "precision",
    "--ckpt_path=nothing.ckpt": "nothing.ckpt",
    "--ckpt_path=folder": "folder",
    "--ckpt_path=empty.ckpt": "`ckpt_path` is not a checkpoint",
    "--ckpt_path=foreign.ckpt": "`ckpt_path` is not a checkpoint",
    "--ckpt_path=of_another_network.ckpt": "state_dict",
    "--ckpt_path=pickled.ckpt": "`ckpt_path` is not a checkpoint",
    f"{CSV}=/proc/nothing": "/proc/nothing",
    f"{CSV}=nothing://bucket": "nothing",
    "--trainer.logger=Nothing": "Nothing",
    "--trainer.limit_train_batches=2.5": "2.5",
    "--trainer.limit_val_batches=-1": "limit_val_batches",
    "--trainer.max_epochs=-2": "max_epochs",
    "--trainer.max_time=forever": "forever",
    "--trainer.val_check_interval=100": "val_check_interval",
    "--trainer.check_val_every_n_epoch=0": "check_val_every_n_epoch",
    "--trainer.gradient_clip_val=-1": "gradient_clip_val",
    "--trainer.gradient_clip_val=1 --trainer.gradient_clip_algorithm=best": "best",
    "--trainer.profiler=nothing": "profiler",
    "--trainer.default_root_dir=file --trainer.logger=true": "file",
    "--trainer.plugins=Nothing": "Nothing",
    f"{SAVING} {CALLBACK}.monitor=val/nothing": "val/nothing",
    f"{SAVING} {CALLBACK}.monitor=val/loss {CALLBACK}.mode=most": "most",
    f"{SAVING} {CALLBACK}.save_top_k=-2": "save_top_k",
    f"{SAVING} {CALLBACK}.dirpath=/proc/nothing": "/proc/nothing",
    f"{SWA} {CALLBACK}.swa_lrs=-1": "swa_lrs",
    f"{SWA} {CALLBACK}.swa_lrs=[0.1,0.1,0.1]": "swa_lr",
    f"{CALLBACK}+=LearningRateFinder": "learning rate finder",
    f"{CALLBACK}+=LearningRateMonitor --trainer.logger=false": "logger",
    f"{CALLBACK}+=BackboneFinetuning": "backbone",
    f"{SCHEDULER} {CALLBACK}.begin=5 {CALLBACK}.end=6": "`end`",
    f"{SCHEDULER} {CALLBACK}.interval=batch": "interval",
    f"{SCHEDULER} {CALLBACK}.total=0": "`total`",
    f"{SCHEDULER} --trainer.max_epochs=-1 --trainer.max_time=00:00:00:05": "EpsilonScheduler(total=...)",
    f"{SCHEDULER} {SCHEDULER}": "EpsilonScheduler",
    f"{SCHEDULER} {CALLBACK}+=GradientAccumulationScheduler {CALLBACK}.scheduling={{0: 2}}": "total",
    OVERRIDE: "No loss was replaced",
    f"{OVERRIDE} {CALLBACK}.scope=[nothing]": "`scope` 'nothing'",
    f"{OVERRIDE} {CALLBACK}.losses=[mse]": "mse",
    f"{OVERRIDE} {CALLBACK}.name=loss_fn {SCHEDULER}": "loss_fn",
    f"{MONITOR} {CALLBACK}.per_class=true {CALLBACK}.num_classes=3": "`num_classes` is 3",
    f"{MONITOR} {CALLBACK}.losses=[head]": "head",
    f"{MONITOR} {CALLBACK}.prog_bar=[term_9]": "term_9",
    "--model.loss_fn.epsilon=1e400": "epsilon",
    "--model.loss_fn.epsilon=[1,nan]": "nan",
    "--model.loss_fn.weight=[1,2]": "weight",
    "--model.loss_fn=Poly1BCEWithLogitsLoss": "Poly1BCEWithLogitsLoss",
    "--model.loss_fn=torch.nn.MSELoss": "size of tensor",
    "--model.network.in_channels=3": "channels",
    "--model.task=multilabel": "multilabel",
    f"{ONE_CYCLE} --model.lr_scheduler.max_lr=0.1": "total_steps",
    "--model.optimizer.betas=[1,2]": "beta",
    "--data.num_workers=-1": "num_workers",
    "--data=ImageFolderDataModule --data.root=nowhere": "nowhere",
    "--config=nowhere.yaml": "nowhere.yaml",
    "--config=broken.yaml": "parsing",
}
QUICK = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
    *(f"{CALLBACK}=ModelCheckpoint", f"{CALLBACK}.monitor=val/loss", "--trainer.logger=false"),
]


@pytest.fixture
def error_line(tmp_path, monkeypatch, capsys):
    """Returns the error of ``polyloss fit`` with more arguments, which must be a single line of standard error."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"file": "", "text.ckpt": "hello", "empty.ckpt": "", "broken.yaml": "a: [1\nb: {"}.items():
        Path(name).write_text(text)
    Path("folder").mkdir()
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, "foreign.ckpt")
    of_another = {"state_dict": {}, "pytorch-lightning_version": "2.6.0"}
    torch.save(of_another, "of_another_network.ckpt")
    torch.save({"path": Path("a")}, "pickled.ckpt")

    def run(arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["fit", "--config", "digits_constant", *QUICK, *arguments])
        assert exit_.value.code in (1, 2) or isinstance(exit_.value.code, str)
        error = capsys.readouterr().err + (exit_.value.code if isinstance(exit_.value.code, str) else "")
        (line,) = [line for line in error.splitlines() if line.startswith(("error: ", "polyloss: "))]
        assert "Traceback" not in error
        return line

    return run


def split(arguments):
    return [f"--{one}" for one in arguments.removeprefix("--").split(" --")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arguments", USUAL)
def test_one_line(error_line, arguments):
    assert USUAL[arguments] in error_line(split(arguments))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arguments", SELDOM)
def test_one_line_seldom(error_line, arguments):
    assert SELDOM[arguments] in error_line(split(arguments))


def test_an_error_in_a_module_of_the_users_own_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("network_with_a_fault.py").write_text(
        "import torch\n\nclass Network(torch.nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(2, 2)\n"
        "    def forward(self, images):\n        raise ValueError('mine')\n"
    )
    with pytest.raises(ValueError, match="mine"):
        main(["fit", "--config", "digits_constant", *QUICK, "--model.network=network_with_a_fault.Network"])


def test_an_unknown_subcommand_is_answered_with_all_of_them(capsys):
    with pytest.raises(SystemExit):
        main(["serach"])
    assert "(choose from fit, validate, test, predict, plot, search, report)" in capsys.readouterr().err


def test_a_missing_subcommand_is_answered_with_all_of_them(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "{fit,validate,test,predict,plot,search,report}" in capsys.readouterr().err
