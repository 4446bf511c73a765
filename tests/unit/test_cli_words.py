"""Every way to write an option means the same, and what cannot be meant is said with the nearest thing that can."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from tyro.conf import Positional, arg

from mvitv2.cli.arguments import flattened, parsed, rewritten
from mvitv2.cli.failures import UsageError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of a command with one of everything."""

    model: Positional[str]
    """A model."""
    files: Positional[tuple[str, ...]] = ()
    """Some files."""
    batch_size: Annotated[int, arg(aliases=["-b"])] = 32
    """Pictures at a time."""
    img_size: int | None = None
    """Side."""
    lr: float = 0.1
    """Learning rate."""
    depths: tuple[int, ...] = (1, 2)
    """Blocks."""
    words: tuple[str, ...] = ()
    """Words."""
    amp: bool = False
    """Mixed precision."""
    shuffle: bool = True
    """In another order every time."""
    opt: Literal["adamw", "sgd"] = "adamw"
    """Optimiser."""
    config: str | None = None
    """A YAML file."""


def read(*words: str) -> Options:
    options = parsed(Options, words, command="probe", about="Probe.", examples="  mvitv2 probe")
    assert options is not None
    return options


@pytest.mark.parametrize(
    "words",
    [
        ["m", "--batch-size", "64"],
        ["m", "--batch-size=64"],
        ["m", "--batch_size", "64"],
        ["m", "-b", "64"],
        ["m", "-b=64"],
        ["--batch-size", "64", "m"],
        ["m", "batch-size=64"],
        ["m", "batch_size=64"],
        ["m", "batch=64"],
        ["m", "--batch", "64"],
        ["model=m", "batch=64"],
        ["batch=64", "weights=m"],
        ["m", "--batch-size", "8", "batch=16", "-b", "64"],
    ],
)
def test_one_option_in_many_ways(words: list[str]) -> None:
    assert read(*words) == Options(model="m", batch_size=64)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--amp"], {"amp": True}),
        (["--amp=true"], {"amp": True}),
        (["amp=1"], {"amp": True}),
        (["amp=False"], {}),
        (["--amp", "--no-amp"], {}),
        (["--no-shuffle"], {"shuffle": False}),
        (["shuffle=off"], {"shuffle": False}),
        (["--no-shuffle", "--shuffle"], {}),
        (["--depths", "1", "1", "2"], {"depths": (1, 1, 2)}),
        (["depths=1,1,2"], {"depths": (1, 1, 2)}),
        (["depths=[1, 1, 2]"], {"depths": (1, 1, 2)}),
        (["--lr", "1e-3"], {"lr": 1e-3}),
        (["--lr", "-1"], {"lr": -1.0}),
        (["imgsz=96"], {"img_size": 96}),
        (["a.png", "b.png"], {"files": ("a.png", "b.png")}),
        (["a.png", "--amp", "b.png"], {"files": ("a.png", "b.png"), "amp": True}),
        (["--depths", "3", "a.png"], {"depths": (3,), "files": ("a.png",)}),
        (["--words", "a", "b", "--amp"], {"words": ("a", "b"), "amp": True}),
        (["-"], {"files": ("-",)}),
        (["--", "-b.png", "a=b.png"], {"files": ("-b.png", "a=b.png")}),
        (["source=a.png"], {"files": ("a.png",)}),
    ],
)
def test_values(words: list[str], expected: dict) -> None:
    assert read("m", *words) == Options(model="m", **expected)


def test_a_file_with_an_equals_sign_in_its_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x=1.png").touch()
    assert read("m", "x=1.png").files == ("x=1.png",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "probe needs MODEL"),
        (["m", "--batch-sise", "3"], "no option --batch-sise; did you mean --batch-size"),
        (["m", "batchsize=3"], "no option batchsize; did you mean batch-size"),
        (["m", "--zzz"], "no option --zzz; mvitv2 probe --help lists them"),
        (["m", "--no-lr"], "no option --no-lr"),
        (["m", "--batch-size"], "--batch-size needs a value"),
        (["m", "-b", "many"], "expected INT, got 'many'"),
        (["m", "--img-size", "2.5"], "--img-size: expected INT, got '2.5'"),
        (["m", "lr=fast"], "--lr: expected FLOAT, got 'fast'"),
        (["m", "--opt", "adam"], "--opt: expected one of 'adamw', 'sgd', got 'adam'"),
        (["m", "amp=maybe"], "--amp=maybe: expected true or false"),
    ],
)
def test_what_cannot_be_meant(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "box",
    [
        "╭─ Value error ─╮\n│ Error parsing │\n│ --lr: could   │\n│ not be '2-' . │\n│ ───── │\n│ Help: │\n╰───╯\n",
        " Value error \n ----------- \n  Error parsing \n  --lr: could \n  not be '2-' . \n ----- \n  Help: \n",
    ],
)
def test_a_box_becomes_its_first_paragraph(box: str) -> None:
    assert flattened(box) == "Error parsing --lr: could not be '2-'"


def test_what_is_no_box_stays_as_it_is() -> None:
    assert flattened("Something else") == "Something else"


def test_words_without_a_place() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Narrow:
        name: Positional[str] = "x"

    with pytest.raises(UsageError, match="no place for 'b' 'c'"):
        rewritten(Narrow, ["a", "b", "c"], command="probe")


def test_help_shows_examples_and_gives_nothing(capsys) -> None:
    assert parsed(Options, ["m", "--help"], command="probe", about="Probe it.", examples="  mvitv2 probe m") is None
    shown = capsys.readouterr().out
    for part in ("Probe it.", "Pictures at a time.", "--batch-size", "Examples:\n  mvitv2 probe m"):
        assert part in shown
    assert "\x1b" not in shown


def config(tmp_path, text: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_of_defaults(tmp_path) -> None:
    path = config(tmp_path, "model: m\nlr: 1e-3\nimgsz: 96\ndepths: [1, 1, 2]\namp: true\nshuffle: false\nopt:\n")
    expected = Options(model="m", lr=1e-3, img_size=96, depths=(1, 1, 2), amp=True, shuffle=False)
    assert read("--config", path) == expected
    assert read(f"config={path}", "--lr", "0.5", "--no-amp").lr == 0.5
    assert read("--config", path, "--no-amp").amp is False
    assert read("other", "--config", path).model == "other"
    assert read("--config", config(tmp_path, ""), "m") == Options(model="m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochz: 3\nbatch_sise: 3", "unknown keys: epochz, batch_sise (did you mean batch_size?)"),
        ("config: other.yaml", "unknown keys: config"),
        ("- 1\n- 2", "holds a list"),
        ("lr: [1, 2]", "lr is [1, 2], expected one plain value"),
        ("lr: {a: 1}", "lr is {'a': 1}, expected one plain value"),
        ("lr: fast", "--lr: expected FLOAT, got 'fast'"),
        ("a: [", "is no YAML"),
        ("x: !!python/object/apply:os.system [ls]", "is no YAML"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read("m", "--config", config(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read("m", "--config", str(tmp_path / "none.yaml"))


def test_a_field_without_a_default_value() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Made:
        names: list[str] = field(default_factory=list)

    assert rewritten(Made, ["--names", "a", "b"], command="probe") == ["--names", "a", "b", "--"]
