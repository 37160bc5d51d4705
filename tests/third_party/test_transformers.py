import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


def loss_of(model, batch):
    return model(**batch).loss


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_bert_for_sequence_classification(check, wrapped, cross_entropy, binary, problem):
    model = BertForSequenceClassification(BertConfig(**SMALL, num_labels=4, problem_type=problem))
    single = problem.startswith("single")
    labels = torch.randint(4, (8,)) if single else torch.randint(2, (8, 4)).float()
    batch = {"input_ids": torch.randint(50, (8, 12)), "labels": labels}
    override = check(wrapped(model, loss_of), batch, cross_entropy if single else binary)
    (site,) = override.call_sites
    assert site.function == ("cross_entropy" if single else "binary_cross_entropy_with_logits")


def test_gpt2_language_model_with_ignored_tokens(check, wrapped, cross_entropy):
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50))
    tokens = torch.randint(50, (4, 12))
    batch = {"input_ids": tokens, "labels": torch.where(torch.rand(4, 12) < 0.3, -100, tokens)}
    check(wrapped(model, loss_of), batch, cross_entropy)
