"""Frozen parts, adapters and balanced sampling where several processes train one model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mvitv2.tasks.processes import joined
from mvitv2.train.objective import Classification
from mvitv2.train.recipe import overridden
from mvitv2.train.settings import Settings

from .team import Team
from .training_job import RECIPE, Patterns, small_job, small_model

LORA = {"adapters.rank": 2, "ema_decay": 0.5}
FROZEN = {"freeze": "1", "sampling": "balanced", "class_weights": "balanced", "ema_decay": None}


def run(folder: Path, *, changes: dict[str, Any], parallel: str) -> None:
    """The whole run, as one of its processes."""
    from mvitv2.train.loop import fit

    recipe, labels = (
        overridden(RECIPE, {"epochs": 1, "warmup_epochs": 0, "accumulation": 1, **changes}),
        Patterns().labels,
    )
    with joined("cpu", minutes=1):
        job = small_job(labels=labels, objective=Classification(recipe, 3, labels))
        fit(job, recipe, Settings(output=folder, parallel=parallel, device="cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("changes", [LORA, FROZEN], ids=["adapters", "frozen"])
def test_two_processes(tmp_path: Path, changes: dict[str, Any], parallel: str) -> None:
    team = Team(2, run, tmp_path, changes=changes, parallel=parallel)
    assert team.end() == [0, 0], team.errors()
    state, before = load_file(tmp_path / "best.safetensors"), small_model().state_dict()
    assert state.keys() == before.keys()
    same = {name for name in before if torch.equal(before[name], state[name])}
    if "freeze" in changes:
        assert same == {name for name in before if name.startswith(("patch_embed.", "blocks.0."))}
    else:
        assert "head.projection.weight" not in same and "blocks.0.attn.qkv.weight" not in same
        assert {"patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"} <= same
        assert (tmp_path / "adapters.safetensors").exists()
