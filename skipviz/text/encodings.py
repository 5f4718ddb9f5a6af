"""Guess the encoding of text that is not UTF-8; nothing here raises or talks to the user."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_EXCERPT = 4_000
"""Bytes that are looked at: chardet takes about a second for ten thousand."""
_WESTERN, _CENTRAL, _CENTRAL_ISO = "windows-1252", "windows-1250", "iso-8859-2"
_FOREIGN_SHARE = 0.3
"""Words in Latin letters have fewer foreign bytes; random data and other scripts have more."""
_EAST_ASIAN = {
    "euc_jp": range(0xB0, 0xD0),
    "gb2312": range(0xB0, 0xD8),
    "big5": range(0xA4, 0xC7),
    "euc_kr": range(0xB0, 0xC9),
}
"""The first bytes under which a national standard keeps its everyday characters."""
_ESCAPED = ("iso2022_jp", "iso2022_kr", "iso2022_jp_3", "iso2022_jp_ext")
_SWITCH = re.compile(rb"\x1b\$[@AB()]")
_RARE_SHARE = 0.2
"""Names and classical words make a few per cent; random bytes nearly all."""


def guess_legacy(data: bytes) -> str | None:
    """Name the one-byte or multi-byte encoding that ``data`` is most likely in.

    Parameters
    ----------
    data
        Bytes that are not UTF-8 and have no NUL among them.

    Returns
    -------
    str or None
        A name that ``bytes.decode`` takes, or None if ``data`` reads like text in none of them.
    """
    # Plain English lines would outweigh the few that tell.
    foreign = b"\n".join(line for line in data.splitlines() if not line.isascii())
    excerpt = foreign[:_EXCERPT]
    encoding = _guess(excerpt)
    if encoding in (None, _CENTRAL):
        older = _guess(excerpt, older=True)
        if encoding is None or older == _CENTRAL_ISO:
            encoding = older
    if encoding is not None and _decodes(data, encoding):
        return encoding
    # A dash or a sign in English text says too little for chardet.
    few = sum(byte >= 0x80 for byte in excerpt) < _FOREIGN_SHARE * len(excerpt)
    return _WESTERN if few and _decodes(data, _WESTERN) else None


def guess_escaped(data: bytes) -> str | None:
    """Name the encoding of text in seven bits that escape sequences switch, as in old e-mail.

    Parameters
    ----------
    data
        Any bytes; those of such an encoding would pass for UTF-8.

    Returns
    -------
    str or None
        A name that ``bytes.decode`` takes, or None if no character set is switched to.
    """
    switched = data.isascii() and _SWITCH.search(data)
    return next((name for name in _ESCAPED if switched and _decodes(data, name)), None)


def guess_utf16(data: bytes) -> str | None:
    """Tell whether ``data`` is UTF-16 without a byte order mark, and in which byte order.

    Parameters
    ----------
    data
        Bytes that are not text in any encoding that keeps ASCII.

    Returns
    -------
    str or None
        ``"utf-16-le"``, ``"utf-16-be"``, or None.
    """
    if len(data) % 2:
        return None
    # A text stays in few scripts, so the byte that names the script varies less than the other.
    orders = [(len(set(data[1::2])), "utf-16-le"), (len(set(data[0::2])), "utf-16-be")]
    for _, name in sorted(orders, key=lambda order: order[0]):
        if _reads_as_prose(data, name):
            return name
    return None


def _guess(data: bytes, *, older: bool = False) -> str | None:
    import chardet  # whose models take long to read, and most texts need none of them
    from chardet.enums import EncodingEra

    era = EncodingEra.MODERN_WEB | EncodingEra.LEGACY_ISO if older else EncodingEra.MODERN_WEB
    encoding = chardet.detect(data, encoding_era=era)["encoding"]
    return None if encoding is None else encoding.lower()


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _reads_as_prose(data: bytes, name: str) -> bool:
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        return False
    east_asian = sum(char >= "\u2e80" for char in text)
    if any(map(_is_never_prose, set(text))):
        return False
    # Prose outside East Asia has spaces, digits or line ends in it.
    if 2 * east_asian < len(text) and not any(char < "\x80" for char in text):
        return False
    return sum(map(_is_rare_east_asian, text)) <= _RARE_SHARE * len(text)


def _is_never_prose(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cn", "Co") and char not in "\t\n\v\f\r"


@lru_cache(maxsize=65_536)
def _is_rare_east_asian(char: str) -> bool:
    if not "\u2e80" <= char <= "\uffff" or "\u3000" < char <= "\u30fe":
        return False
    if "\uff01" <= char <= "\uff5e":
        return False
    return not any(_is_everyday(char, *standard) for standard in _EAST_ASIAN.items())


def _is_everyday(char: str, standard: str, rows: range) -> bool:
    try:
        return char.encode(standard)[0] in rows
    except UnicodeEncodeError:
        return False
