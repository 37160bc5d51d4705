import pytest
import torch
from torch import nn

from polyloss_lightning.callbacks import EpsilonScheduler
from polyloss_lightning.losses import Poly1CrossEntropyLoss
from polyloss_lightning.schedules import CyclicSchedule


class Core(nn.Module):
    """A network with its loss, to be compiled as a whole."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.loss = Poly1CrossEntropyLoss()

    def forward(self, input, target):
        return self.loss(self.net(input), target)


@pytest.fixture
def backend():
    """A compiler that does nothing but keep the graphs it is given."""

    def keep(graph, inputs):
        keep.graphs.append(graph)
        return graph

    keep.graphs = []
    torch._dynamo.reset()
    yield keep
    torch._dynamo.reset()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 1.0), ((-1.0, -0.5), (0.5, 2.0))], ids=str)
@pytest.mark.condition("EpsilonScheduler", "torch.compile")
def test_a_moving_epsilon_costs_at_most_two_graphs(make_trainer, seen_epsilon, backend, low, high):
    class Compiled(seen_epsilon):
        def __init__(self):
            super().__init__(12)
            self.core = torch.compile(Core(), backend=backend, fullgraph=True)
            del self.loss_fn

        def training_step(self, batch, batch_idx):
            eager = self.core._orig_mod
            self.seen.append(eager.loss.epsilon)
            loss = self.core(*batch)
            torch.testing.assert_close(loss, eager(*batch))
            return loss

    module = Compiled()
    scheduler = EpsilonScheduler(CyclicSchedule(low, high, cycles=3), loss="core.loss")
    make_trainer(callbacks=[scheduler], max_epochs=2).fit(module)
    assert len(set(module.seen)) > 8
    assert len(backend.graphs) <= 2


@pytest.mark.condition("EpsilonScheduler", "torch.compile")
def test_a_moving_epsilon_costs_at_most_two_graphs_in_a_compiled_lightning_module(make_trainer, seen_epsilon, backend):
    class Plain(seen_epsilon):
        def training_step(self, batch, batch_idx):
            return self.loss_fn(self.net(batch[0]), batch[1])

    module = Plain(12)
    trainer = make_trainer(callbacks=[EpsilonScheduler(CyclicSchedule(-1.0, 2.0, cycles=3))], max_epochs=2)
    trainer.fit(torch.compile(module, backend=backend))
    assert module.loss_fn.epsilon == -1.0
    assert 1 <= len(backend.graphs) <= 2
