"""Readouts, and the classifier whose activation belongs to inference alone."""

import pytest
import torch
from torch import nn

from mvitv2.core.heads import READOUTS, TransformerBasicHead
from tests import tiny


def test_what_a_classifier_sees() -> None:
    x, norm = torch.randn(2, 7, 4), nn.LayerNorm(4)
    nn.init.normal_(norm.weight)
    with_token, without = (2, 3), (1, 7)
    assert torch.equal(READOUTS["class_token"](x, with_token, norm), norm(x[:, 0]))
    torch.testing.assert_close(READOUTS["norm_mean"](x, with_token, norm), norm(x[:, 1:]).mean(1))
    torch.testing.assert_close(READOUTS["norm_mean"](x, without, norm), norm(x).mean(1))
    torch.testing.assert_close(READOUTS["mean_norm"](x, with_token, norm), norm(x[:, 1:].mean(1)))
    torch.testing.assert_close(READOUTS["mean_norm"](x, without, norm), norm(x.mean(1)))
    assert torch.equal(READOUTS["tokens"](x, with_token, norm), norm(x))


@pytest.mark.parametrize(("activation", "function"), [("softmax", lambda y: y.softmax(-1)), ("sigmoid", torch.sigmoid)])
def test_activation_at_inference_only(activation: str, function) -> None:
    head, x = TransformerBasicHead(4, 3, act_func=activation), torch.randn(5, 4)
    logits = head.projection(x)
    assert torch.equal(head.train()(x), logits)
    assert torch.equal(head.eval()(x), function(logits))
    model = tiny.model(tiny.image(head_activation=activation))
    pixels = tiny.pixels(model.config)
    probabilities = model(pixels)
    torch.testing.assert_close(probabilities, function(model.train()(pixels)))


def test_logits_by_default() -> None:
    head, x = TransformerBasicHead(4, 3).eval(), torch.randn(5, 4)
    assert torch.equal(head(x), head.projection(x))


def test_dropout_is_in_front() -> None:
    head = TransformerBasicHead(1000, 1, 0.5).train()
    nn.init.ones_(head.projection.weight)
    nn.init.zeros_(head.projection.bias)
    assert head(torch.ones(1, 1000)).item() == pytest.approx(1000, abs=150)
    assert head(torch.ones(1, 1000)).item() % 2 == 0, "what is kept counts twice"


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match="act_func='relu' is none of 'none', 'softmax', 'sigmoid'"):
        TransformerBasicHead(4, 3, act_func="relu")
