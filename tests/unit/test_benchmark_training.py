"""Both engines train on the same pictures, ours no longer than timm; what was measured is kept with its machine."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import training

TINY = (
    "epochs=3",
    "warmup_epochs=1",
    "batch_size=4",
    "img_size=32",
    "stages.depths=1,1",
    "stages.embed_dim=8",
    "stages.kv_stride=2,2",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of one colour each."""
    for split, count in (("train", 8), ("val", 4)):
        for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.new("RGB", (40, 36), tuple(value + i for value in colour))
                picture.save(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


# timm leaves the files of pictures open
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_two_engines_on_the_same_pictures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", str(tmp_path / "out"), "--keep", str(tmp_path / "run")]
    assert training.main([str(folder), "--set", *TINY, *words]) == 0
    assert (tmp_path / "run" / "best.safetensors").exists()
    (report,) = (tmp_path / "out").glob("*-training-data.json")
    kept = json.loads(report.read_text())
    assert set(kept["seconds_per_step"]) == {f"{name} {p}" for name in ("timm", "mvitv2") for p in ("fp32", "bf16")}
    assert kept["timm"]["epochs"] == 3
    assert all(0 <= kept[name]["top1"] <= 1 and kept[name]["cpu_seconds"] > 0 for name in ("timm", "mvitv2"))
    assert len(kept["mvitv2"]["history"]) == kept["mvitv2"]["epochs"]
    assert kept["machine"]["versions"]["timm"]
    assert "top-1" in capsys.readouterr().out
