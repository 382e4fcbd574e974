"""Files that are either the old version or the new one, and that tell when they were damaged.

What is read again holds the SHA-256 of its own bytes, taken with zeros where the hash stands: JSON
and TOML in their first line, safetensors in the metadata. Files of older versions have none.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from . import _ranks
from ._errors import InputError, naming

KEY = "content_hash"
PREFIX = "daqakd-sha256:"  # a second mark: no single flipped bit makes a hashed file an old one
BLANK = PREFIX + "0" * 64
HASH = re.compile(rb"content_hash\W{1,6}daqakd-sha256:([0-9a-f]{64})")
TEMPORARY = re.compile(r"\..*\.\d+-[0-9a-f]{8}\.tmp")
HEAD = 256  # bytes of a text in which its hash stands
BLOCK = 2**24  # bytes hashed at a time


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` atomically: a kill or a full disk leaves the old file.

    Of several ranks the first writes.

    Raises:
        OSError: naming ``path``, or its folder.
    """
    if not _ranks.is_writer():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:100]}.{mark}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def read_bytes(path: Path) -> bytes:
    """Read a file; errors of the system name it."""
    with naming(path):
        return path.read_bytes()


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else works in."""
    for path in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Replace a text file atomically; bytes of names that are not UTF-8 stay what they are."""
    write_bytes(path, content.encode(errors="surrogateescape"))


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically; an object gets its hash as the first entry."""
    if not isinstance(content, Mapping):
        return write_text(path, json.dumps(content, indent=2) + "\n")
    hashed = {KEY: BLANK, **{k: v for k, v in content.items() if k != KEY}}
    write_bytes(path, _hashed((json.dumps(hashed, indent=2) + "\n").encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that :func:`write_json` wrote, without its hash.

    Raises:
        InputError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(_checked(path))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, f"holds a {type(content).__name__}, expected an object")
    return {k: v for k, v in content.items() if k != KEY}


def write_toml(path: Path, content: str) -> None:
    """Replace a TOML file atomically; its hash stands in a comment."""
    text = f'# {KEY} = "{BLANK}"\n{content}'
    write_bytes(path, _hashed(text.encode(errors="surrogateescape")))


def read_toml(path: Path) -> str:
    """Return the text of a TOML file, its hash checked; errors as for :func:`read_json`."""
    text = _checked(path)
    if not text.endswith("\n"):  # a comment that is cut is TOML too
        raise damaged(path, "its end is missing")
    return text


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Replace a safetensors file atomically; equal content gives equal bytes.

    The library writes ``facts`` in a random order, so the header is written again, sorted. Tensors
    that share memory (tied weights, views) are written one by one.
    """
    if not _ranks.is_writer():
        return
    content = save(_apart(tensors), metadata={**facts, KEY: BLANK})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, _hashed(len(text).to_bytes(8, "little") + text + content[end:]))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read anybody's safetensors file: its tensors and metadata, without our hash.

    Raises:
        InputError: the file is damaged.
        OSError: it cannot be read.
    """
    with naming(path):
        _check_tensors(path)
        try:
            tensors, facts = _mapped(path) if _is_utf8(path) else _parsed(path.read_bytes())
        except (SafetensorError, ValueError) as error:
            raise _no_safetensors(path, error) from error
    facts.pop(KEY, None)
    return tensors, facts


def _is_utf8(path: Path) -> bool:
    return str(path).encode(errors="replace") == os.fsencode(path)


def _mapped(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        facts = dict(file.metadata() or {})
        return {k: file.get_tensor(k) for k in file.keys()}, facts  # noqa: SIM118


def _parsed(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what stands at a path that the library does not take."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return load(content), header.get("__metadata__", {})


def damaged(path: Path, what: object) -> InputError:
    """Build the error for a file whose content is not what was written."""
    advice = "delete it and run the command that wrote it again"
    return InputError(f"{path}: damaged ({what}); {advice}")


def _no_safetensors(path: Path, what: object) -> InputError:
    return InputError(
        f"{path}: not a safetensors file, or a damaged one ({what}); delete it and run the command"
        " that wrote it again"
    )


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, no two of which share memory."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in seen else plain
        seen.add(place)
    return apart


def _hashed(content: bytes) -> bytes:
    """Put the hash where ``BLANK`` stands first."""
    digest = PREFIX + hashlib.sha256(content).hexdigest()
    return content.replace(BLANK.encode(), digest.encode(), 1)


def _place(path: Path, head: bytes) -> "re.Match[bytes] | None":
    """Find the hash in the beginning of a file; None in files of older versions and of others."""
    found = HASH.search(head)
    if found is None and (KEY.encode() in head or PREFIX.encode() in head):
        raise damaged(path, "its hash cannot be read")
    return found


def _compare(path: Path, found: "re.Match[bytes]", digest: "hashlib._Hash") -> None:
    if digest.hexdigest().encode() != found[1]:
        raise damaged(path, "its content does not have the hash that it was written with")


def _checked(path: Path) -> str:
    """Read a text, its hash checked."""
    content = read_bytes(path)
    if not content:
        raise damaged(path, "empty")
    found = _place(path, content[:HEAD])
    if found is not None:
        blank = content[: found.start(1)] + b"0" * 64 + content[found.end(1) :]
        _compare(path, found, hashlib.sha256(blank))
    return content.decode(errors="surrogateescape")


def _check_tensors(path: Path) -> None:
    """Check the hash of a safetensors file, where it has one, block by block."""
    with open(path, "rb") as file:
        start = file.read(8)
        size = int.from_bytes(start, "little")
        if size == 0 or size > os.fstat(file.fileno()).st_size:
            raise _no_safetensors(path, "no header")
        head = file.read(size)
        found = _place(path, head)
        if found is None:
            return
        blank = head[: found.start(1)] + b"0" * 64 + head[found.end(1) :]
        digest = hashlib.sha256(start + blank)
        while block := file.read(BLOCK):
            digest.update(block)
    _compare(path, found, digest)
