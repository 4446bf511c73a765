"""The table of published files: complete, consistent, found by the names people use, and fetched like any file."""

import hashlib
import http.server
import threading

import pytest

from mvitv2.aliases import DETECTRON2
from mvitv2.preprocessing import IMAGENET, IMAGENET_TIMM, Preprocessing
from mvitv2.variants import VARIANTS
from mvitv2.weights.dialects import DIALECTS
from mvitv2.weights.download import DownloadError, hash_in_name
from mvitv2.weights.published import DETECT, IMAGE, PRETRAINING, VIDEO, Release
from mvitv2.weights.releases import RELEASES, default_release, fetch_release, release, releases_of

ENTRIES = list(RELEASES.values())
by_name = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)

# One address of each kind, letter by letter as its publisher writes it.
ADDRESSES = (
    "https://dl.fbaipublicfiles.com/mvit/mvitv2_models/MViTv2_T_in1k.pyth",
    "https://dl.fbaipublicfiles.com/mvit/mvitv2_models/MViTv2_H_in21k.pyth",
    "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/mvitv2/pysf_video_models/MViTv2_S_16x4_k400_f302660347.pyth",
    "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/mvitv2/pysf_video_models/MViTv2_L_40x3_ssv2_f309603968.pyth",
    "https://dl.fbaipublicfiles.com/pyslowfast/masked_models/k400_MVIT_L_MaskFeat_PT_epoch_00800.pyth",
    "https://dl.fbaipublicfiles.com/pyslowfast/rev/REV_MVIT_B_16x4.pyth",
    "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/mvit/k400.pyth",
    "https://download.pytorch.org/models/mvit_v2_s-ae3be167.pth",
    "https://download.pytorch.org/models/mvit_v1_b-dbeb1030.pth",
    "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/MVIT_B_32x3_f294077834.pyth",
    "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/imagenet/MVIT_B_16_f292487636.pyth",
    "https://download.openmmlab.com/mmclassification/v0/mvit/mvitv2-tiny_3rdparty_in1k_20220722-db7beeef.pth",
    "https://dl.fbaipublicfiles.com/detectron2/MViTv2/mask_rcnn_mvitv2_t_3x/f307611773/model_final_1a1c30.pkl",
    "https://dl.fbaipublicfiles.com/detectron2/MViTv2/cascade_mask_rcnn_mvitv2_l_in12k_lsj_50ep/"
    "f308099658/model_final_c41c5a.pkl",
    "https://dl.fbaipublicfiles.com/detectron2/ViTDet/COCO/cascade_mask_rcnn_mvitv2_h_in21k/f326187358/"
    "model_final_2234d7.pkl",
    "https://dl.fbaipublicfiles.com/detectron2/ViTDet/LVIS/cascade_mask_rcnn_mvitv2_b_in21k/329477206/"
    "model_final_a00567.pkl",
)


def test_names_addresses_and_repositories_are_all_different():
    assert len(RELEASES) == len(ENTRIES) == 61
    places = [entry.url or entry.hub or entry.page for entry in ENTRIES]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_those_of_the_publishers(address):
    assert release(address).url == address


@by_name
def test_every_entry_agrees_with_itself(entry):
    assert entry.variant in VARIANTS or entry.variant is None
    assert entry.name.startswith(f"{entry.variant or 'mvitv1_32x3'}.")
    assert entry.dialect in DIALECTS
    assert entry.task in (IMAGE, VIDEO, DETECT, PRETRAINING)
    assert [entry.url is None, entry.hub is None, entry.page is None].count(False) == 1
    assert (entry.url or entry.page or "https://").startswith("https://")
    assert entry.source.startswith("https://")
    assert entry.license
    assert entry.sha256 == (hash_in_name(entry.url) if entry.url else None)
    assert all(0 < value < 100 for value in entry.reported.values())
    assert set(entry.reported) <= ({"box_ap", "mask_ap"} if entry.task == DETECT else {"top1", "top5"})
    assert bool(entry.reported) != (entry.task == PRETRAINING or entry.num_classes == 19168)


@by_name
def test_classes_and_clips_fit_the_architecture(entry):
    assert Preprocessing.from_dict(entry.preprocessing.to_dict()) == entry.preprocessing
    if entry.variant is None:
        return
    config = VARIANTS[entry.variant]
    *frames, height, width = config.input_size
    if entry.task == DETECT:
        assert entry.num_classes in (80, 1203)
        return
    assert entry.preprocessing.size == (height, width)
    assert entry.preprocessing.num_frames == (frames[0] if frames else None)
    if entry.task == PRETRAINING:
        assert entry.num_classes == 0
    elif "ssv2" in entry.name:
        assert (entry.num_classes, entry.preprocessing.sampling_rate) == (174, None)
    else:
        assert entry.num_classes == config.num_classes


def test_the_statistics_that_no_file_says():
    """Images ImageNet's; video 0.45, but L ImageNet's; Something-Something L those in reverse; detection ImageNet's."""
    means = {name: RELEASES[name].preprocessing.mean for name in RELEASES}
    assert RELEASES["mvitv2_t.official_in1k"].preprocessing == IMAGENET
    assert RELEASES["mvitv2_t.timm_in1k"].preprocessing == IMAGENET_TIMM
    assert means["mvitv2_s_16x4.slowfast_k400"] == means["mvitv2_s_16x4.torchvision_k400"] == (0.45,) * 3
    assert means["mvitv2_l_40x3.slowfast_k400"] == means["mvitv2_l_40x3.mmaction2_k400"] == (0.485, 0.456, 0.406)
    assert means["mvitv2_l_40x3.slowfast_ssv2"] == (0.406, 0.456, 0.485)
    assert means["mvitv2_t_det.detectron2_coco_cascade_3x"] == (0.485, 0.456, 0.406)
    assert {entry.preprocessing.channels for entry in ENTRIES} == {"rgb"}


def test_every_detector_that_detectron2_names_is_there():
    for name, variant in DETECTRON2.items():
        stem = name.replace("_in21k_100ep", "_in21k").replace("_in21k_50ep", "_in21k").replace("_in21k_36ep", "_in21k")
        folders = {stem, stem.replace("in21k", "in12k")}
        found = [entry for entry in releases_of(variant) if folders & set((entry.url or "").split("/"))]
        assert found, name


# --- finding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mvitv2_t.official_in1k", "mvitv2_t.official_in1k"),
        ("MViTv2_T_in1k.pyth", "mvitv2_t.official_in1k"),
        ("timm/mvitv2_tiny.fb_in1k", "mvitv2_t.timm_in1k"),
        ("mvitv2_tiny.fb_in1k", "mvitv2_t.timm_in1k"),
        ("mvit_v2_s-ae3be167.pth", "mvitv2_s_16x4.torchvision_k400"),
        ("model_final_1a1c30.pkl", "mvitv2_t_det.detectron2_coco_mask_rcnn_3x"),
    ],
)
def test_files_are_found_by_the_names_people_use(name, expected):
    assert release(name).name == expected


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mvitv2_t.oficial_in1k", "mvitv2_t.official_in1k"),
        ("MViTv2_T_in1k.pth", "MViTv2_T_in1k.pyth"),
        ("timm/mvitv2_tiny", "timm/mvitv2_tiny.fb_in1k"),
        ("in21k", "official_in21k"),
        ("qqqq", "mvitv2_t.official_in1k"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(name, hint):
    with pytest.raises(ValueError) as caught:
        release(name)
    assert hint in str(caught.value)
    assert "did you mean" in str(caught.value)


def test_a_name_of_several_files_is_not_guessed(monkeypatch):
    twin = Release(
        name="twin", variant="mvitv2_t", dialect="official", task=IMAGE, num_classes=1000, preprocessing=IMAGENET,
        url="https://example.com/MViTv2_T_in1k.pyth",
    )  # fmt: skip
    monkeypatch.setattr("mvitv2.weights.releases.RELEASES", {**RELEASES, "twin": twin})
    with pytest.raises(ValueError, match=r"names 2 published files.*official_in1k.*twin"):
        release("MViTv2_T_in1k.pyth")


def test_files_of_an_architecture_the_authors_first():
    assert [entry.dialect for entry in releases_of("mvitv2_t")] == ["official", "timm", "mmpretrain"]
    assert [entry.name for entry in releases_of("maskfeat_s_16x4", task=PRETRAINING)] == [
        "maskfeat_s_16x4.slowfast_k400_pretraining",
        "maskfeat_s_16x4.mmselfsup_k400_pretraining",
    ]
    assert releases_of("mvitv2_h_cls") == ()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("mvitv2_t", "mvitv2_t.official_in1k"),
        ("mvitv2_s_16x4", "mvitv2_s_16x4.slowfast_k400"),
        ("mvitv1_b", "mvitv1_b.pytorchvideo_in1k"),
        ("mvitv1_b_16x4", "mvitv1_b_16x4.torchvision_k400"),
        ("maskfeat_s_16x4", "maskfeat_s_16x4.mmaction2_k400_trained"),
        ("maskfeat_l_16x4", "maskfeat_l_16x4.slowfast_k400_pretraining"),
        ("mvitv2_t_det", "mvitv2_t_det.detectron2_coco_mask_rcnn_3x"),
    ],
)
def test_the_default_file_is_one_that_can_be_fetched(variant, expected):
    assert default_release(variant).name == expected


def test_architectures_without_files_say_so():
    without = {name for name in VARIANTS if not releases_of(name)}
    # mvitv1_b24_32x3 is what a configuration builds; which model the published 32x3 files are, the files decide
    assert without == {"mvitv2_s_cls", "mvitv2_b_cls", "mvitv2_l_cls", "mvitv2_h_cls", "mvitv1_b24_32x3"}
    with pytest.raises(ValueError, match=r"nobody published weights of 'mvitv2_h_cls'.*mvitv2_h_cls_21k"):
        default_release("mvitv2_h_cls")


# --- fetching ----------------------------------------------------------------------------------------------------

BODY = b"weights"


@pytest.fixture
def mirror(monkeypatch):
    """A server that has every file."""
    for name in ("MVITV2_CACHE", "MVITV2_OFFLINE", "MVITV2_MIRROR"):
        monkeypatch.delenv(name, raising=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_a_release_is_fetched_by_name_and_lies_under_its_own_address(mirror, tmp_path):
    path = fetch_release("MViTv2_T_in1k.pyth", mirror=mirror, cache_dir=tmp_path)
    assert path.read_bytes() == BODY
    assert path == tmp_path / "dl.fbaipublicfiles.com" / "mvit" / "mvitv2_models" / "MViTv2_T_in1k.pyth"


def test_the_published_hash_is_verified(mirror, tmp_path):
    with pytest.raises(DownloadError, match=f"{hashlib.sha256(BODY).hexdigest()}, expected ae3be167"):
        fetch_release(RELEASES["mvitv2_s_16x4.torchvision_k400"], mirror=mirror, cache_dir=tmp_path)


def test_a_file_for_browsers_says_where_it_is():
    with pytest.raises(DownloadError, match=r"drive\.google\.com.*path of the saved file"):
        fetch_release("mvitv1_b.slowfast_in1k")


def test_files_of_the_hub_are_asked_for_there(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("mvitv2.weights.releases.fetch_hub", lambda *names, **options: asked.append((names, options)))
    fetch_release("mvitv2_tiny.fb_in1k", cache_dir=tmp_path, progress=False)
    assert asked == [(("timm/mvitv2_tiny.fb_in1k", "model.safetensors"), {"cache_dir": tmp_path})]
