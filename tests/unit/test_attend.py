"""The attention that defines all others, on paper."""

import torch

from mvitv2.core.attend import dense_bias, reference


def test_softmax_of_scaled_products_and_the_bias() -> None:
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) / 2).softmax(-1)
    torch.testing.assert_close(reference(q, k, v, []), torch.einsum("bhij,bhjd->bhid", weights, v))
    terms = [torch.randn(2, 3, 5, 7)]
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) / 2 + terms[0]).softmax(-1)
    torch.testing.assert_close(reference(q, k, v, terms), torch.einsum("bhij,bhjd->bhid", weights, v))


def test_class_token_neither_gives_nor_gets_a_bias() -> None:
    terms = [torch.randn(1, 1, 6, 2), torch.randn(1, 1, 6, 3)]
    bias = dense_bias(torch.zeros(1, 1, 7, 4), terms)
    assert bias.shape == (1, 1, 7, 7)
    assert not bias[..., 0, :].any() and not bias[..., 0].any()
    torch.testing.assert_close(bias[0, 0, 4, 1 + 1 * 3 + 2], terms[0][0, 0, 3, 1] + terms[1][0, 0, 3, 2])


def test_a_constant_term_changes_nothing() -> None:
    q, k, v = (torch.randn(1, 2, 6, 4, dtype=torch.float64) for _ in "qkv")
    terms = [torch.randn(1, 2, 6, 2, dtype=torch.float64), torch.randn(1, 2, 6, 3, dtype=torch.float64)]
    shifted = [terms[0] + 5, terms[1] - 3]
    torch.testing.assert_close(reference(q, k, v, shifted), reference(q, k, v, terms))
