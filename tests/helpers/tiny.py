"""A small Tiny ImageNet as people have it: the zip's layout, class folders, Parquet files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("n01443537", "n01629819", "n01641577")
LINES = [(f"val_{i}.JPEG", CLASSES[(2 * i + 1) % 3]) for i in range(6)]


def _save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if seed % 5 == 0 else pixels).save(path)  # some are grey


def write_zip_layout(root: Path, each: int = 4) -> Path:
    """Write what tiny-imagenet-200.zip holds, a few images of it; return the folder."""
    for label, name in enumerate(CLASSES):
        for i in range(each):
            _save(root / "train" / name / "images" / f"{name}_{i}.JPEG", 10 * label + i)
        boxes = root / "train" / name / f"{name}_boxes.txt"
        boxes.write_text(f"{name}_0.JPEG\t0\t0\t7\t7\n")
    for i, (file, _) in enumerate(LINES):
        _save(root / "val/images" / file, 100 + i)
    lines = [f"{file}\t{name}\t0\t0\t7\t7\n" for file, name in LINES]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    _save(root / "test/images/test_0.JPEG", 200)
    (root / "wnids.txt").write_text("\n".join(CLASSES))
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return root


def sort_val(root: Path) -> Path:
    """Move val's images into class folders, as many scripts do, and leave the annotations."""
    for file, name in LINES:
        (root / "val" / name).mkdir(exist_ok=True)
        (root / "val/images" / file).rename(root / "val" / name / file)
    return root


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    """Return a split of the zip's layout as rows of an export."""
    paths = [(root / "val/images" / file, CLASSES.index(name)) for file, name in LINES]
    if split == "train":
        found = sorted(root.glob("train/*/images/*.JPEG"))
        paths = [(path, CLASSES.index(path.parent.parent.name)) for path in found]
    return [
        {"image": {"bytes": path.read_bytes(), "path": None}, "label": label}
        for path, label in paths
    ]


def write_parquet(
    path: Path, rows: list[dict[str, Any]], names: list[str] | None = None, group: int = 5
) -> Path:
    """Write rows as the Hugging Face Hub exports them, with the classes' names."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(rows)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def write_export(source: Path, root: Path, shards: int = 2) -> Path:
    """Write the zip's layout at ``source`` as an export, its training images in several files."""
    rows = rows_of(source, "train")
    each = -(-len(rows) // shards)
    for i in range(shards):
        part = rows[i * each : (i + 1) * each]
        name = f"train-{i:05}-of-{shards:05}-1359597a978bc4fa.parquet"
        write_parquet(root / "data" / name, part, [*CLASSES])
    valid = "valid-00000-of-00001-70d52db3c749a935.parquet"
    write_parquet(root / "data" / valid, rows_of(source, "valid"), [*CLASSES])
    return root
