"""How much memory a loss holds: while it runs, and until backward."""

import pytest
import torch

import polyloss_lightning as poly

pytestmark = pytest.mark.closed_form
ROWS, CLASSES = 1750, 2000  # 3.5 million logits
INDEX = torch.randint(CLASSES, (ROWS,))


def soft():
    return torch.rand(ROWS, CLASSES).softmax(1)


def multi_hot():
    return (torch.rand(ROWS, CLASSES) < 0.05).float()


CASES = {
    "index": (poly.Poly1CrossEntropyLoss(), lambda: INDEX),
    "smoothed": (poly.Poly1CrossEntropyLoss(label_smoothing=0.1), lambda: INDEX),
    "probabilities": (poly.Poly1CrossEntropyLoss(), soft),
    "focal": (poly.Poly1FocalLoss(), soft),
    "binary": (poly.Poly1BCEWithLogitsLoss(), multi_hot),
    "sigmoid_focal": (poly.Poly1SigmoidFocalLoss(), multi_hot),
}
with_cases = pytest.mark.parametrize(("loss", "target_of"), CASES.values(), ids=CASES)


@with_cases
@pytest.mark.parametrize("autocast", [False, True])
def test_the_peak_is_one_tensor_of_the_size_of_the_logits_and_a_little(loss, target_of, autocast, peak):
    input = torch.randn(ROWS, CLASSES, dtype=torch.bfloat16 if autocast else torch.float32, requires_grad=True)
    target = target_of()

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(input, target)
        value.backward()

    step()
    input.grad = None
    assert peak(step) <= 1.15 * input.numel() * input.element_size()


@with_cases
def test_without_gradients_only_blocks_are_held(loss, target_of, peak):
    input, target = torch.randn(ROWS, CLASSES), target_of()
    assert peak(lambda: loss(input, target)) <= 0.3 * input.numel() * input.element_size()


@with_cases
def test_the_gradient_alone_waits_for_backward(loss, target_of):
    input, target = torch.randn(ROWS, CLASSES, requires_grad=True), target_of()
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(input, target)
    for given in (input, target):
        storages.pop(given.untyped_storage().data_ptr(), None)
    assert sum(storages.values()) <= 1.01 * input.numel() * input.element_size()


@with_cases
def test_backward_hands_over_the_gradient_that_forward_computed(loss, target_of):
    input, target = torch.randn(ROWS, CLASSES, requires_grad=True), target_of()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.data_ptr()) or tensor, lambda t: t
    ):
        loss(input, target).backward()
    assert input.grad.data_ptr() in saved


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_peak_is_the_same_for_images(memory_format, peak):
    input = torch.randn(4, 21, 224, 224).to(memory_format=memory_format).requires_grad_()
    target = torch.randint(21, (4, 224, 224))
    loss = poly.Poly1CrossEntropyLoss()
    loss(input, target).backward()
    input.grad = None
    assert peak(lambda: loss(input, target).backward()) <= 1.15 * input.numel() * input.element_size()
