"""Token grids: the class token, and pooling with heads in the batch."""

import pytest
import torch
from torch import nn

from mvitv2.core.grid import attention_pool, half, num_prefix, one_wider, over_grid, pooled


def test_sizes() -> None:
    assert half((3, 7, 1)) == (1, 3, 0)
    assert one_wider((1, 2, 4)) == (1, 3, 5)
    assert pooled((56, 57), (3, 3), (2, 2)) == (28, 29)
    assert pooled((56, 56), None, (1, 1)) == (56, 56)
    assert pooled((224, 224), (7, 7), (4, 4), (0, 0)) == (55, 55)


def test_pooled_needs_one_number_per_axis() -> None:
    with pytest.raises(ValueError, match="zip"):
        pooled((8, 8), (3, 3, 3), (1, 1, 1))


def test_tokens_beside_the_grid() -> None:
    assert num_prefix(torch.zeros(2, 12, 5), (3, 4)) == 0
    assert num_prefix(torch.zeros(2, 13, 5), (3, 4)) == 1
    assert num_prefix(torch.zeros(2, 2, 13, 5), (3, 4)) == 1


@pytest.mark.parametrize("tokens", [11, 14])
def test_wrong_number_of_tokens(tokens: int) -> None:
    with pytest.raises(ValueError, match=rf"{tokens} tokens cannot be a grid of \(3, 4\) = 12 tokens plus at most one"):
        over_grid(torch.zeros(1, tokens, 5), (3, 4), nn.Identity())


@pytest.mark.parametrize("prefix", [0, 1])
def test_heads_share_a_kernel_and_the_norm_sees_every_token(prefix: int) -> None:
    conv, norm = nn.Conv2d(5, 5, 3, 2, 1, groups=5, bias=False), nn.LayerNorm(5)
    x = torch.randn(2, 3, prefix + 12, 5)
    tokens, grid = attention_pool(x, conv, (3, 4), norm)
    assert tokens.shape == (2, 3, prefix + 4, 5) and grid == (2, 2)
    for sample in range(2):
        for head in range(3):
            lattice = x[sample, head, prefix:].T.reshape(1, 5, 3, 4)
            alone = torch.cat((x[sample, head, :prefix], conv(lattice)[0].flatten(1).T))
            torch.testing.assert_close(tokens[sample, head], norm(alone))


def test_no_pooling_means_no_norm_either() -> None:
    x = torch.randn(1, 2, 13, 5)
    tokens, grid = attention_pool(x, None, (3, 4), nn.LayerNorm(5))
    assert tokens is x and grid == (3, 4)
