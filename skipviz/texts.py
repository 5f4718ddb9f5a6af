"""Reads texts: what a user pastes, uploads or names on the command line.

Whatever cannot be read is refused with a sentence that says what is wrong and what to do.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from pathlib import Path

from charset_normalizer import from_bytes

SUFFIXES = (".txt", ".md", ".jsonl")

# UTF-32 comes first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNATURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive (Word and Excel files are such archives)",
    b"\x1f\x8b": "a gzip archive",
    b"\x7fELF": "a program",
    b"PAR1": "a Parquet table",
}
_ACCEPTED = f"Give a text in {', '.join(SUFFIXES)}."
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x0b\x1b\x00")
_MAX_CONTROL_SHARE = 0.02
_MAX_NUL_SHARE = 0.1


class TextError(ValueError):
    """A text that cannot be used; the message is a sentence for the user."""


@dataclass(frozen=True)
class Document:
    """A text and where it came from.

    Attributes
    ----------
    source
        File name, with ``:LINE`` behind it for a row of JSON Lines.
    text
        The text, line endings as they were.
    encoding
        Encoding it was read in.
    """

    source: str
    text: str
    encoding: str = "utf-8"


def check_text(text: str) -> str:
    """Return the text if it can be traced.

    Raises
    ------
    TextError
        If it is empty or blank, or holds half of a surrogate pair.
    """
    if not text.strip():
        raise TextError("The text is empty. Paste or upload at least one word.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"Character {error.start + 1} is half of a surrogate pair (U+{ord(text[error.start]):04X})"
            ", which is no character. Take it out or save the text as UTF-8 again."
        ) from error
    return text


def decode(data: bytes, *, source: str) -> tuple[str, str]:
    """Turn bytes into text, and say in which encoding.

    A byte order mark decides, then valid UTF-8, then detection.

    Raises
    ------
    TextError
        If the bytes are no text.
    """
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            raise TextError(f"{source} is {kind}, not a text. {_ACCEPTED}")
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_as(data, encoding, source=source), encoding
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _detect(data, source=source)
    if data and _nul_share(data) > _MAX_NUL_SHARE:  # ASCII in UTF-16 is valid UTF-8, full of NULs
        return _utf16_or_binary(data, source=source)
    if data and sum(byte in _CONTROLS for byte in data[:65536]) > _MAX_CONTROL_SHARE * len(
        data[:65536]
    ):
        raise TextError(f"{source} is binary: it is full of control characters. {_ACCEPTED}")
    return text, "utf-8"


def read_bytes(data: bytes, *, name: str, limit: int | None) -> list[Document]:
    """Read an uploaded file.

    Parameters
    ----------
    data
        Its contents.
    name
        Its name; the ending says how to read it.
    limit
        Largest size in bytes, or None for no limit.

    Raises
    ------
    TextError
        If the kind is unknown, the file is too large, blank, binary or not what it says.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise TextError(f"{name} ends in {suffix or 'nothing'}. {_ACCEPTED}")
    if limit is not None and len(data) > limit:
        raise TextError(
            f"{name} has {len(data) / 1e6:.1f} MB; the limit is {limit / 1e6:g} MB. Cut it into "
            "parts, or trace it with `skipviz trace`, which has no limit."
        )
    text, encoding = decode(data, source=name)
    if not text.strip():
        raise TextError(f"{name} is empty. Give a file with at least one word in it.")
    if suffix == ".jsonl":
        return _json_lines(text, name=name, encoding=encoding)
    return [Document(source=name, text=check_text(text), encoding=encoding)]


def read_path(path: Path, *, limit: int | None = None) -> list[Document]:
    """Read a file named on the command line; files of unknown endings are read as plain text.

    Raises
    ------
    TextError
        If there is no such file, it may not be read, or ``read_bytes`` refuses it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}. Check its name.") from error
    name = path.name if path.suffix.lower() in SUFFIXES else path.name + ".txt"
    return [
        Document(
            source=document.source.replace(name, path.name, 1),
            text=document.text,
            encoding=document.encoding,
        )
        for document in read_bytes(data, name=name, limit=limit)
    ]


def _json_lines(text: str, *, name: str, encoding: str) -> list[Document]:
    # Only these end a line of JSON Lines; str.splitlines would also cut at U+2028 inside a string.
    lines = text.replace("\r\n", "\n").split("\n")
    return [
        Document(
            source=f"{name}:{number}", text=_field(line, f"{name}, line {number}"), encoding=encoding
        )
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _field(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise TextError(
            f"{where}: not JSON ({reason}). Each line must be an object such as "
            '{"text": "..."}.'
        ) from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        found = f"the fields {sorted(row)}" if isinstance(row, dict) else type(row).__name__
        raise TextError(
            f'{where}: no field "text" with a string in it (found {found}). Each line must be an '
            'object such as {"text": "..."}.'
        )
    try:
        return check_text(row["text"])
    except TextError as error:
        raise TextError(f"{where}: {error}") from error


def _decode_as(data: bytes, encoding: str, *, source: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{source} begins with the mark of {encoding} but is not valid at byte "
            f"{error.start}: the file is broken. Save it again as UTF-8."
        ) from error


def _detect(data: bytes, *, source: str) -> tuple[str, str]:
    if _nul_share(data) > _MAX_NUL_SHARE:
        return _utf16_or_binary(data, source=source)
    best = None if 0 in data else from_bytes(data).best()
    if best is None:
        raise TextError(f"{source} is binary, or a text in no encoding known. {_ACCEPTED}")
    return str(best), best.encoding


def _utf16_or_binary(data: bytes, *, source: str) -> tuple[str, str]:
    even, odd = data[0::2].count(0), data[1::2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    # Latin text has its NULs on one side only; anything else is no UTF-16 that can be told apart.
    if len(data) % 2 == 0 and min(even, odd) * 10 < max(even, odd):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            pass
    raise TextError(f"{source} is binary: it is full of NUL bytes. {_ACCEPTED}")


def _nul_share(data: bytes) -> float:
    return data.count(0) / max(1, len(data))
