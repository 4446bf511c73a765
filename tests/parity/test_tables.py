"""Index tables, fixed positions and drop path rates of the peers."""

import json
import zlib

import numpy as np
import pytest
import torch

from mvitv2.core.config import schedule
from mvitv2.core.positions import sincos_positions
from mvitv2.core.relpos import displacement, table_rows
from mvitv2.models import model_config

from . import fixtures

REL_INDEX = json.loads((fixtures.HERE / "tables" / "rel_index.json").read_text())["pairs"]
SINCOS = json.loads((fixtures.HERE / "tables" / "sincos_3d.json").read_text())["cases"]
DROP_PATH = json.loads((fixtures.HERE / "drop_path_rates.json").read_text())["rates"]


def crc(index: torch.Tensor) -> str:
    return f"{zlib.crc32(index.numpy().astype('<i4').tobytes()) & 0xFFFFFFFF:08x}"


@pytest.mark.parametrize("pair", REL_INDEX, ids=lambda p: f"{p['q']}x{p['k']}")
def test_rows_of_displacements(pair: dict) -> None:
    q, k = pair["q"], pair["k"]
    assert table_rows(q, k) == pair["rows"]
    assert crc(displacement(q, k)) == pair["crc32"]
    assert crc(displacement(q, k, order="torchvision")) == pair.get("torchvision_crc32", pair["crc32"])


@pytest.mark.parametrize("case", SINCOS, ids=lambda c: f"{c['embed_dim']}-{c['cls']}")
def test_fixed_positions(case: dict) -> None:
    grid = (case["t"], case["grid"], case["grid"])
    table = sincos_positions(case["embed_dim"], grid).numpy()
    if case["cls"]:
        table = np.concatenate([np.zeros((1, table.shape[1])), table])
    assert list(table.shape) == case["shape"]
    np.testing.assert_allclose(table.reshape(-1), np.asarray(case["value"]).reshape(-1), atol=1e-11)


VARIANTS = {
    "official/mvitv2_t": "mvitv2_t",
    "official/mvitv2_s": "mvitv2_s",
    "official/mvitv2_b": "mvitv2_b",
    "timm/mvitv2_tiny drop_path_rate=0.1": "mvitv2_t",
    "timm/mvitv2_small drop_path_rate=0.1": "mvitv2_s",
    "timm/mvitv2_base drop_path_rate=0.1": "mvitv2_b",
    "detectron2/mvitv2_t": "mvitv2_t_det",
    "detectron2/mvitv2_s": "mvitv2_s_det",
    "slowfast/mvitv2_s_16x4": "mvitv2_s_16x4",
    "slowfast/rev_mvit_b_16 (image)": "rev_mvit_b",
    "torchvision/mvit_v2_s": "mvitv2_s_16x4",
    "mmpretrain/mvitv2-tiny drop_path_rate=0.1": "mvitv2_t",
}


@pytest.mark.parametrize("name", sorted(DROP_PATH))
def test_drop_path_rates(name: str) -> None:
    rate = 0.1 if name.endswith("=0.1") else None
    specs = schedule(model_config(VARIANTS[name], drop_path_rate=rate))
    assert [s.drop_path for s in specs] == pytest.approx(DROP_PATH[name], abs=1e-7)
