# pyright: reportOptionalSubscript=false, reportOptionalOperand=false
"""det_parity -- recipe weights, images, loader and comparers for the full-DETECTOR parity fixtures.

Standalone: Python >= 3.8, numpy, and parity_weights.py next to this file.  No project dependency, no torch.

Weights: the recipe of parity_weights (values from the tensor's NAME, SHAPE and KIND), plus two kinds
    gain:G:KIND   float32(G) * values of KIND          predictor layers whose raw output is too flat or too wild
    values        given in fx["values"][name]          calibrated biases of predictor layers (few numbers)
Images: `image(seed, h, w)`, uint8 (3, h, w): integer arithmetic only (boxes, discs, coarse bilinear noise), so the
    bytes do not depend on a maths library.  Channel order is the model's input_format (RGB).

    fx    = det_parity.load("tiny_cascade.json")
    state = dict(det_parity.state_arrays(fx))            # detectron2 names -> numpy
    batch = det_parity.images(fx)                        # [{"image": uint8 (3,h,w), "height": .., "width": ..}, ...]
    rep   = det_parity.compare(fx, {"p2": ..., "rpn.p2.objectness": ...})          # summaries, in order of computation
    rep   = det_parity.compare_detections(fx, [{"boxes":..,"scores":..,"classes":..}, ...])   # order-free
"""
import base64
import json
import os
import sys
import zlib

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import parity_weights as pw

FORMAT = "mvit-det-parity/1"
crc = pw.crc
MASK_POINTS = (89, 266, 406, 395, 416, 569, 720, 783)  # flat positions in a 28x28 mask at which each detection's probability is listed
summarise, compare_array = pw.summarise, pw.compare_array


# --------------------------------------------------------------------------------------------- weights
def tensor_values(name, shape, kind, salt="", values=None):
    if kind == "values":
        return np.asarray(values[name], np.float32).reshape(shape)
    if kind.startswith("gain:"):
        _, g, k = kind.split(":", 2)
        return pw.tensor_values(name, shape, k, salt) * np.float32(float(g))
    return pw.tensor_values(name, shape, kind, salt)


def load(path):
    with open(path, "r", encoding="utf-8") as f:
        fx = json.load(f)
    if fx.get("format") != FORMAT or fx.get("recipe") != pw.RECIPE:
        raise ValueError("%s: format %r recipe %r" % (path, fx.get("format"), fx.get("recipe")))
    return fx


def state_arrays(fx, check=True):
    """Yield (name, ndarray) in the peer's own state_dict order (no `literal` tensors)."""
    for name, shape, kind, want in fx["tensors"]:
        a = tensor_values(name, shape, kind, fx.get("salt", ""), fx.get("values"))
        if a is None:
            continue
        if check and crc(a) != want:
            raise ValueError("recipe drift: tensor %r came out as %s, fixture says %s" % (name, crc(a), want))
        yield name, a


# ---------------------------------------------------------------------------------------------- images
def image(seed, h, w):
    """uint8 (3, h, w) picture of overlapping boxes and discs on a smooth background; integers only."""
    rng = pw._rng("det-image/%s" % seed)
    gh, gw = h // 32 + 2, w // 32 + 2
    grid = rng.integers(40, 216, size=(3, gh, gw)).astype(np.int64)
    y, x = np.arange(h), np.arange(w)
    y0, x0, fy, fx_ = y // 32, x // 32, (y % 32)[:, None], (x % 32)[None, :]
    g = lambda dy, dx: grid[:, y0 + dy][:, :, x0 + dx]
    img = (g(0, 0) * (32 - fy) * (32 - fx_) + g(0, 1) * (32 - fy) * fx_ + g(1, 0) * fy * (32 - fx_) + g(1, 1) * fy * fx_) // 1024
    n = 6 + (h * w) // 12000
    for _ in range(n):
        cy, cx = int(rng.integers(0, h)), int(rng.integers(0, w))
        ry, rx = int(rng.integers(6, max(8, h // 3))), int(rng.integers(6, max(8, w // 3)))
        col = rng.integers(0, 256, size=3).astype(np.int64)
        alpha = int(rng.integers(96, 257))
        dy, dx = (y - cy)[:, None], (x - cx)[None, :]
        if int(rng.integers(0, 2)):
            m = (np.abs(dy) <= ry) & (np.abs(dx) <= rx)
        else:
            m = (dy * dy) * (rx * rx) + (dx * dx) * (ry * ry) <= (rx * rx) * (ry * ry)
        if int(rng.integers(0, 3)) == 0:  # striped
            m = m & (((dy + dx) // 4) % 2 == 0)
        img = np.where(m[None], (img * (256 - alpha) + col[:, None, None] * alpha) // 256, img)
    img = img + rng.integers(-12, 13, size=(3, h, w))
    return np.clip(img, 0, 255).astype(np.uint8)


def images(fx, check=True):
    out = []
    for d in fx["images"]:
        if "seed" in d:
            a = image(d["seed"], d["h"], d["w"])
        else:
            a = photo(d)
        if check and crc(a) != d["crc32"]:
            raise ValueError("image drift: %r" % d)
        out.append({"image": a, "height": d["height"], "width": d["width"]})
    return out


def photo(d):
    """crop of a COCO file: d = {file, sha256, top, left, h, w}; needs Pillow and the folder in $COCO_SMALL_VAL"""
    import hashlib
    from PIL import Image
    path = os.path.join(os.environ.get("COCO_SMALL_VAL", "shared/data/coco_small/val"), d["file"])
    data = open(path, "rb").read()
    if hashlib.sha256(data).hexdigest() != d["sha256"]:
        raise ValueError("another file: %s" % path)
    a = np.asarray(Image.open(path).convert("RGB"))[d["top"]:d["top"] + d["h"], d["left"]:d["left"] + d["w"]]
    return np.ascontiguousarray(a.transpose(2, 0, 1))


# --------------------------------------------------------------------------------------- packed arrays
def pack(a):
    """whole array as base64 of little-endian bytes (float32, int64 -> int32, bool -> uint8)"""
    a = np.asarray(a)
    t = {"f": "<f4", "i": "<i4", "u": "|u1", "b": "|u1"}[a.dtype.kind]
    a = np.ascontiguousarray(a.astype(t))
    return {"shape": list(a.shape), "dtype": t, "b64": base64.b64encode(zlib.compress(a.tobytes(), 9)).decode()}


def unpack(d):
    return np.frombuffer(zlib.decompress(base64.b64decode(d["b64"])), d["dtype"]).reshape(d["shape"])


# ------------------------------------------------------------------------------------------- comparing
def compare(fx, outputs, precision="float32", tol=None, strict=False, section="expected"):
    """Like parity_weights.compare: outputs is {name: ndarray}; names not produced are skipped."""
    exp = fx[section][precision]
    if section == "expected_given_proposals":  # float32 entries equal to those of `expected` are not stored twice
        exp = {k: exp.get(k) or fx["expected"][precision].get(k) for k in fx["order_sensitive"]["given_proposals_names"]}
    base = fx["tolerance"][precision] if tol is None else tol
    per = fx["tolerance"].get(precision + "_by_name", {}) if tol is None else {}
    rows, missing, first = [], [], None
    for name, want in exp.items():
        if name not in outputs:
            missing.append(name)
            continue
        r = compare_array(outputs[name], want, per.get(name, base))
        rows.append((name, r["error"], r["ok"], r["why"]))
        if not r["ok"] and first is None:
            first = name
    return {"ok": first is None and bool(rows) and not (strict and missing), "tol": base, "rows": rows, "missing": missing,
            "first_bad": first, "worst": max([r[1] for r in rows], default=float("nan"))}


def box_iou(a, b):
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    lt, rb = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    wh = np.clip(rb - lt, 0, None)
    inter = wh[..., 0] * wh[..., 1]
    area = lambda z: (z[:, 2] - z[:, 0]) * (z[:, 3] - z[:, 1])
    return inter / np.maximum(area(a)[:, None] + area(b)[None] - inter, 1e-9)


def match(got, want, with_class=True):
    """greedy one-to-one matching (same class, largest IoU or nearest corners, then nearest score); returns index of `got` per `want`, or -1"""
    iou = box_iou(want["boxes"], got["boxes"])
    a, b = np.asarray(want["boxes"], np.float64).reshape(-1, 4), np.asarray(got["boxes"], np.float64).reshape(-1, 4)
    if iou.size:  # boxes without area (IoU 0 with themselves) are matched by their corners
        iou = np.maximum(iou, 1.0 - np.abs(a[:, None] - b[None]).max(-1))
    if with_class:
        iou = np.where(np.asarray(want["classes"])[:, None] == np.asarray(got["classes"])[None], iou, -1.0)
    val = iou - 1e-3 * np.abs(np.asarray(want["scores"], np.float64)[:, None] - np.asarray(got["scores"], np.float64)[None])
    idx, free = np.full(len(iou), -1), np.ones(iou.shape[1] if iou.size else 0, bool)
    for i in np.argsort(-np.asarray(want["scores"]), kind="stable"):
        v = np.where(free, val[i], -9.0)
        if v.size and v.max() > 0.5:
            idx[i] = int(v.argmax())
            free[idx[i]] = False
    return idx


def compare_detections(fx, got, precision="float32", section="detections", box_tol=None, score_tol=None):
    """got: per image {"boxes" (n,4), "scores" (n,), "classes" (n,)} in input-image coordinates, before post-processing; optional
    "mask_probs" (n,28,28), "output_boxes" and "output_mask_area" after it.  Order-free; every detection must have its partner."""
    t = fx["tolerance"]
    bt, st = t["boxes_px"] if box_tol is None else box_tol, t["scores"] if score_tol is None else score_tol
    rep = []
    for w, g in zip(fx[section][precision], got):
        idx = match(g, w)
        wb, ws = np.asarray(w["boxes"], np.float64).reshape(-1, 4), np.asarray(w["scores"], np.float64)
        gb, gs = np.asarray(g["boxes"], np.float64).reshape(-1, 4), np.asarray(g["scores"], np.float64)
        ok = idx >= 0
        be = float(np.abs(gb[idx[ok]] - wb[ok]).max()) if ok.any() else 0.0
        se = float(np.abs(gs[idx[ok]] - ws[ok]).max()) if ok.any() else 0.0
        extra = {}
        if "mask_probs" in g and ok.any():
            m = np.asarray(g["mask_probs"], np.float64).reshape(len(gs), -1)[idx[ok]][:, list(MASK_POINTS)]
            extra["worst_mask_prob"] = float(np.abs(m - np.asarray(w["mask_prob_sample"])[ok]).max())
        if "output_mask_area" in g and ok.all() and "output_index" not in w and len(gs):
            extra["worst_mask_area"] = int(np.abs(np.asarray(g["output_mask_area"])[idx] - np.asarray(w["output_mask_area"])).max())
        if "output_boxes" in g and ok.all() and "output_index" not in w and len(gs):
            extra["worst_output_box_px"] = float(np.abs(np.asarray(g["output_boxes"], np.float64)[idx] - np.asarray(w["output_boxes"])).max())
        ok_extra = (extra.get("worst_mask_prob", 0) <= t.get("mask_probs", 1e-3) and extra.get("worst_mask_area", 0) <= t.get("mask_area_px", 4)
                    and extra.get("worst_output_box_px", 0) <= 2 * bt)
        rep.append({"ok": bool(ok_extra and ok.all() and len(gs) == len(ws) and be <= bt and se <= st), "expected": len(ws), "got": len(gs),
                    "unmatched": int((~ok).sum()), "worst_box_px": be, "worst_score": se, **extra, "partner": idx.tolist()})
    return {"ok": all(r["ok"] for r in rep) and len(got) == len(fx[section][precision]), "images": rep, "box_tol": bt, "score_tol": st}


def compare_proposals(fx, got, box_tol=0.02, allow=0):
    """got: per image (n,4) RPN proposals in any order, against the full recorded float32 list; `allow` may be without partner"""
    rep = []
    for p, g in zip(fx["full"]["proposals"], got):
        w, g = unpack(p["boxes"]).astype(np.float64), np.asarray(g, np.float64).reshape(-1, 4)
        d = np.abs(w[:, None] - g[None]).max(-1) if len(w) and len(g) else np.ones((len(w), len(g))) * 1e9
        a, b = int((d.min(1) > box_tol).sum()) if len(g) else len(w), int((d.min(0) > box_tol).sum()) if len(w) else len(g)
        rep.append({"ok": max(a, b) <= allow and len(w) == len(g), "expected": len(w), "got": len(g), "missing": a, "extra": b})
    return {"ok": all(r["ok"] for r in rep) and len(got) == len(fx["full"]["proposals"]), "images": rep}


if __name__ == "__main__":
    pw.self_test()
    bad = 0
    for path in sys.argv[1:]:
        try:
            fx = load(path)
            n = sum(1 for _ in state_arrays(fx))
            images(fx)
            print("%-40s %4d tensors, %d images ok" % (fx["id"], n, len(fx["images"])))
        except Exception as e:  # noqa: BLE001
            bad += 1
            print("%s: %s" % (path, e))
    sys.exit(1 if bad else 0)
