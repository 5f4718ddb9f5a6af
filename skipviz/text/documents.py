"""Turn what a user hands over - pasted text, an upload, a file - into documents, or say why not."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from skipviz.errors import InputError, TextError
from skipviz.text.arguments import check_types
from skipviz.text.encodings import guess_escaped, guess_legacy, guess_utf16

SUFFIXES = (".txt", ".md", ".jsonl")

_ACCEPTED = "skipviz reads text in .txt, .md and .jsonl files"
_MESSAGES = 'Messages are a list such as [{"role": "user", "content": "..."}], with both as text'
_ROW = 'Each line must be a JSON object with a string field "{0}", like {{"{0}": "..."}}'

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# No text begins like this, whatever follows.
_SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF-": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"PK\x03\x04": "a ZIP archive (.docx, .xlsx, .epub and .pt files are such archives)",
    b"\x7fELF": "a program (ELF)",
    b"\x1f\x8b": "gzip-compressed data",
    b"\xfd7zXZ": "xz-compressed data",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\xd0\xcf\x11\xe0": "an old Microsoft Office file (.doc, .xls, .ppt)",
}
# A text may begin like this, so it only names data already known to be binary.
_SIGNATURES_OF_BINARY = {
    b"GIF8": "a GIF image",
    b"RIFF": "an audio, video or WebP file (RIFF)",
    b"OggS": "an Ogg audio file",
    b"ID3": "an MP3 audio file",
    b"BZh": "bzip2-compressed data",
    b"MZ": "a Windows program",
    b"GGUF": "model weights (GGUF)",
    b"PAR1": "a Parquet table",
    b"SQLite format 3": "an SQLite database",
}
_CONTROLS = "".join(map(chr, {*range(1, 0x20), 0x7F} - set(b"\t\n\v\f\r\b\x1b")))
_CONTROL_BYTES = _CONTROLS.encode()
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One text to trace.

    Parameters
    ----------
    source
        Where it comes from: the file's name, with ``:LINE`` behind it for a row of JSON Lines.
    text
        The text, line endings as they were.
    encoding
        The encoding the file was found to be in, by a name that ``bytes.decode`` takes.
    messages
        A conversation in place of a text, which is then empty: each with ``role`` and ``content``.
        It is written as the model's chat template does.

    Examples
    --------
    >>> document = skipviz.Document("fox.txt", "The fox jumps.")
    >>> skipviz.trace(model, document).tokens["source"].unique().to_list()
    ['fox.txt']
    """

    source: str
    text: str
    encoding: str = "utf-8"
    messages: tuple[Mapping[str, str], ...] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "source", storable(self.source))

    @property
    def characters(self) -> int:
        """How many there are in the text, or in all that is said in the conversation."""
        return len(self.text) + sum(len(message["content"]) for message in self.messages)

    def __repr__(self) -> str:
        if self.messages:
            return f"Document({self.source!r}, {len(self.messages):,} messages)"
        start = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"Document({self.source!r}, {start!r}, {len(self.text):,} characters)"


def storable(name: str) -> str:
    """Return a name as text that can be stored, with bytes that are no characters written out.

    Parameters
    ----------
    name
        A file's or a folder's, whose names may be any bytes.
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def as_documents(texts: str | Document | Iterable[str | Document]) -> list[Document]:
    """Return texts as documents, each one that can be traced.

    Parameters
    ----------
    texts
        One, or several.

    Raises
    ------
    InputError
        If there are none.
    TextError
        If one is blank or cannot be encoded.
    """
    given: Any = [texts] if isinstance(texts, str | Document) else texts
    if isinstance(given, Mapping | Set):
        raise InputError(
            f"The texts are a {type(given).__name__}, which has keys or no order. Give a list of "
            "texts; a conversation is a list of messages."
        )
    if not isinstance(given, Iterable):
        raise InputError(f"{given!r:.60} is no text; give a text, a Document, or several.")
    given = list(given)
    if not given:
        raise InputError("There is no text; give at least one.")
    for number, text in enumerate(given, start=1):
        if not isinstance(text, str | Document):
            raise InputError(
                f"Text {number} is {text!r:.60}, of type {type(text).__name__}; give each as a "
                "text or a Document."
            )
    documents = [
        text if isinstance(text, Document) else Document(source="text", text=text) for text in given
    ]
    for document in documents:
        if not document.messages:
            check_text(document.text)
    return documents


def check_no_conversation(documents: Sequence[Document]) -> None:
    """Check that each document is a text, whose words can be changed.

    Raises
    ------
    InputError
        Names the one that is a conversation.
    """
    for document in documents:
        if document.messages:
            raise InputError(
                f"{document.source} is a conversation, and this changes the words of texts. Trace "
                "what was said in it as a text."
            )


def check_text(text: str) -> str:
    """Return a pasted text unchanged, having made sure that there is something to trace.

    Parameters
    ----------
    text
        What the user typed or pasted.

    Returns
    -------
    str
        The same text.

    Raises
    ------
    TextError
        If it is empty or blank, or holds half a surrogate pair.
    """
    if _is_blank(text):
        raise TextError("The text is empty or blank. Type or paste at least one word.")
    if half := _SURROGATE.search(text):
        raise TextError(
            f"The text has half a character (the lone surrogate U+{ord(half[0]):04X}) as its "
            f"character {half.start() + 1:,}, which cannot be stored. Delete it, or copy the text "
            "again from where it came."
        )
    return text


def read_path(path: Path, *, limit: int | None = None, chat: bool = False) -> list[Document]:
    """Read a file named on the command line; one of unknown ending is read as plain text.

    Parameters
    ----------
    path
        The file.
    limit
        The most bytes to accept, None for no limit.
    chat
        Whether rows of JSON Lines may hold ``messages`` in place of a text.

    Returns
    -------
    list of Document
        One, or one per row for JSON Lines.

    Raises
    ------
    TextError
        If the file is missing or unreadable, a pipe or a device, too big, or not text.
    """
    # A name need not be UTF-8; what is kept or shown of it must be.
    shown = os.fsencode(path).decode("utf-8", errors="replace")
    name = os.fsencode(path.name).decode("utf-8", errors="replace")
    try:
        if path.is_dir():
            raise TextError(f"{shown} is a folder. Name the files in it, such as {shown}/*.txt.")
        if path.exists() and not path.is_file():
            raise TextError(
                f"{shown} is a pipe or a device, not a file. Save the text in a file and name "
                "that, or send it to standard input and name -."
            )
        _check_size(path.stat().st_size, name=name, limit=limit)
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except FileNotFoundError:
        raise TextError(f"{shown} does not exist. Check the spelling and the folder.") from None
    except PermissionError:
        raise TextError(
            f"{shown} may not be read by this user. Change its permissions, or copy it."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise TextError(
            f"{shown} cannot be read ({reason}). Check its name and its disk."
        ) from None
    rows = path.suffix.lower() == ".jsonl"
    return _read(data, name=name, limit=limit, rows=rows, chat=chat)


def read_stream(data: bytes, *, limit: int | None = None) -> list[Document]:
    """Read what came through standard input as one text.

    Parameters
    ----------
    data
        Everything that was read.
    limit
        The most bytes to accept, None for no limit.

    Returns
    -------
    list of Document
        One document, its source ``<stdin>``.

    Raises
    ------
    TextError
        If it is empty, too big or not text.
    """
    return _read(data, name="<stdin>", limit=limit, rows=False)


def read_bytes(data: bytes, *, name: str, limit: int | None) -> list[Document]:
    """Read the documents in an uploaded file; rows of JSON Lines may be conversations.

    Parameters
    ----------
    data
        The bytes of the file.
    name
        Its name; the extension says how to read it.
    limit
        The most bytes to accept, None for no limit.

    Returns
    -------
    list of Document
        One, or one per row for JSON Lines.

    Raises
    ------
    TextError
        If the extension is unknown, or the file too big, empty or not text; for JSON Lines with
        the number of the line.
    """
    extension = _check_extension(name)
    return _read(data, name=name, limit=limit, rows=extension == ".jsonl", chat=True)


def decode(data: bytes, *, source: str) -> tuple[str, str]:
    """Decode text in whatever encoding it is.

    A byte order mark is obeyed and dropped; valid UTF-8 is taken as such; else the encoding is
    guessed. Line endings and the odd NUL are kept.

    Parameters
    ----------
    data
        The bytes of a text.
    source
        What to call it in an error.

    Returns
    -------
    text : str
        The text.
    encoding : str
        The encoding's name, one that ``bytes.decode`` takes.

    Raises
    ------
    TextError
        If the bytes are binary, broken UTF-8, or in no encoding that can be told.
    """
    if looks := _signature(data, _SIGNATURES):
        raise _not_text(source, f"it looks like {looks}")
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_marked(data[len(mark) :], encoding, source=source), encoding
    if (escaped := guess_escaped(data)) is not None:
        return data.decode(escaped), escaped
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _decode_foreign(data, error, source=source)
    if not _is_plain(text):
        return _decode_utf16(data, source=source)
    return text, "utf-8"


def _read(
    data: bytes, *, name: str, limit: int | None, rows: bool, chat: bool = False
) -> list[Document]:
    _check_size(len(data), name=name, limit=limit)
    text, encoding = decode(data, source=name)
    if _is_blank(text):
        raise TextError(f"{name} is empty or blank. Give a file with text in it.")
    if not rows:
        return [Document(name, text, encoding)]
    return [
        _row(row, name=name, number=number, encoding=encoding, chat=chat)
        for number, row in _rows(text)
    ]


def _check_extension(name: str) -> str:
    extension = PurePath(name).suffix.lower()
    if extension not in SUFFIXES:
        found = f"ends in {extension}" if extension else "has no extension"
        raise TextError(f"{name} {found}, but {_ACCEPTED}. Save the text as one of these.")
    return extension


def _check_size(size: int, *, name: str, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise TextError(
            f"{name} has {size:,} bytes ({size / 1e6:.1f} MB), over the limit of {limit:,} bytes "
            f"({limit / 1e6:.1f} MB). Split it, or choose a part of it."
        )


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _rows(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and content of each line; only a newline ends one, U+2028 does not."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not _is_blank(line):
            yield number, line


def _row(line: str, *, name: str, number: int, encoding: str, chat: bool) -> Document:
    document, _ = read_row(line, name=name, number=number, encoding=encoding, chat=chat)
    return document


def read_row(
    line: str,
    *,
    name: str,
    number: int,
    encoding: str = "utf-8",
    chat: bool = False,
    text_field: str = "text",
) -> tuple[Document, dict[str, Any]]:
    """Return the text of a row of JSON Lines, or the conversation, and what else the row has.

    Parameters
    ----------
    line
        The row.
    name, number
        Of the file, and of the line in it, from 1.
    encoding
        The file's.
    chat
        Whether the row may hold ``messages`` in place of a text.
    text_field
        The field that holds the text.

    Raises
    ------
    TextError
        Says what is wrong with which line.
    """
    source, where = f"{name}:{number}", f"{name}, line {number}"
    row = _parse(line, where=where, field_name=text_field)
    if chat and isinstance(row, dict) and "messages" in row and text_field not in row:
        messages = _messages(row.pop("messages"), where=where)
        return Document(source, "", encoding, messages=messages), row
    text = _row_field(row, where=where, field_name=text_field)
    if _is_blank(text):
        raise TextError(
            f'{where}: the field "{text_field}" is empty or blank. Fill it, or drop the line.'
        )
    _check_whole(text, where=where, field_name=text_field)
    return Document(source, text, encoding), {k: v for k, v in row.items() if k != text_field}


def _messages(messages: Any, *, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise TextError(f'{where}: the field "messages" is {_kind(messages)}. {_MESSAGES}.')
    for number, message in enumerate(messages, start=1):
        fields = message if isinstance(message, dict) else {}
        if set(fields) != {"role", "content"}:
            found = _fields(fields) if fields else _kind(message)
            raise TextError(f"{where}: message {number} is another ({found}). {_MESSAGES}.")
        for name, value in fields.items():
            if not isinstance(value, str):
                raise TextError(
                    f'{where}: the field "{name}" of message {number} is {_kind(value)}. '
                    f"{_MESSAGES}."
                )
            _check_whole(value, where=where, field_name=name)
    return tuple(messages)


def _check_whole(text: str, *, where: str, field_name: str) -> None:
    if half := _SURROGATE.search(text):
        raise TextError(
            f'{where}: the field "{field_name}" has half a character (the lone surrogate '
            f"\\u{ord(half[0]):04x}), which cannot be stored. Write the whole pair, or delete it."
        )


def _parse(line: str, *, where: str, field_name: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at column {error.colno}"
    except RecursionError:
        found = "brackets nested too deep"
    except ValueError:
        found = "a number with too many digits"
    raise TextError(f"{where}: this is not valid JSON ({found}). {_ROW.format(field_name)}.")


def _row_field(row: Any, *, where: str, field_name: str) -> str:
    wanted = _ROW.format(field_name)
    if not isinstance(row, dict):
        raise TextError(f"{where}: found {_kind(row)}. {wanted}.")
    if field_name not in row:
        raise TextError(
            f'{where}: the object has no field "{field_name}" ({_fields(row)}). {wanted}.'
        )
    text = row[field_name]
    if isinstance(text, str):
        return text
    raise TextError(f'{where}: the field "{field_name}" is {_kind(text)}. {wanted}.')


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, dict):
        return "an object"
    if value == []:
        return "an empty list"
    return "a list" if isinstance(value, list) else "a string"


def _fields(row: dict[str, Any]) -> str:
    names = [json.dumps(name if len(name) <= 40 else name[:39] + "…") for name in [*row][:5]]
    if not names:
        return "it is empty"
    return "its fields are " + ", ".join(names) + (", and more" if len(row) > 5 else "")


def _signature(data: bytes, signatures: dict[bytes, str]) -> str | None:
    return next((name for start, name in signatures.items() if data.startswith(start)), None)


def _not_text(source: str, why: str) -> TextError:
    return TextError(f"{source} is not text: {why}. {_ACCEPTED}, best saved as UTF-8.")


def _binary(data: bytes, *, source: str) -> TextError:
    if looks := _signature(data, _SIGNATURES_OF_BINARY):
        return _not_text(source, f"it looks like {looks}")
    return _not_text(source, "it looks like binary data, full of bytes that stand for no character")


def _decode_marked(data: bytes, encoding: str, *, source: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{source} is marked as {encoding.upper()} but breaks off or is damaged at byte "
            f"{error.start + 1:,} after the mark. Save it again as UTF-8, or upload it once more."
        ) from None
    if not _is_plain(text):
        raise _binary(data, source=source)
    return text


def _decode_foreign(data: bytes, error: UnicodeDecodeError, *, source: str) -> tuple[str, str]:
    if 0 in data or _is_full_of_controls(data):
        return _decode_utf16(data, source=source)
    if _is_broken_utf8(data):
        raise _broken_utf8(data, error, source=source)
    encoding = guess_legacy(data)
    if encoding is None:
        raise _not_text(source, "it is in no encoding that can be told from its bytes")
    return data.decode(encoding), encoding


def _decode_utf16(data: bytes, *, source: str) -> tuple[str, str]:
    encoding = guess_utf16(data)
    if encoding is None:
        raise _binary(data, source=source)
    return data.decode(encoding), encoding


def _is_plain(text: str) -> bool:
    """Tell text from binary: few control characters, and no NUL where there are others."""
    nuls = text.count("\0")
    others = sum(map(text.count, _CONTROLS))
    if nuls:
        return others == 0 and nuls <= max(1, len(text) // 4)
    return others <= max(1, len(text) // 50)


def _is_full_of_controls(data: bytes) -> bool:
    return sum(map(data.count, _CONTROL_BYTES)) * 50 > len(data)


def _is_broken_utf8(data: bytes) -> bool:
    """Hardly any other encoding makes valid UTF-8 sequences: with many, the rest is damage."""
    text = data.decode("utf-8", errors="replace")
    whole = sum(char > "\x7f" for char in text)
    broken = text.count("\ufffd")
    return whole - broken > 4 * broken


def _broken_utf8(data: bytes, error: UnicodeDecodeError, *, source: str) -> TextError:
    if error.end == len(data) and error.reason == "unexpected end of data":
        return TextError(
            f"{source} breaks off in the middle of a character at its end: it was cut short. "
            "Upload or copy the whole file again."
        )
    line = data.count(b"\n", 0, error.start) + 1
    return TextError(
        f"{source} is UTF-8 text with a damaged character: byte 0x{data[error.start]:02X} on line "
        f"{line:,} does not belong. Mend that line and save the file as UTF-8."
    )
