"""Guess the encoding of text that is not UTF-8; nothing here raises or talks to the user.

charset-normalizer judges how messy and how language-like each reading is. On a line or two that
leaves many readings level, so the letters that an encoding is there for are counted as well, and
what is still level goes to the encoding that is met most often.
"""

# ruff: noqa: RUF001 - letters of many scripts are what this file is about

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from charset_normalizer import from_bytes

_PUNCTUATION = "“”‘’–—…«»„°€£§©®•·\xa0№"

# Only the letters that texts in these encodings are full of: a guess is made from what is common.
_LETTERS = {
    "cp1252": "éèêëàâáãäåæçíîïìñóòôöõøœúùûüßÉÀÅÄÖÜÇ¿¡½±×µ",
    "cp1250": "ąćęłńóśźżŚŻŁáčďéěíňřšťúůýžČŠŽŘőűöüÁÉŐâăîşţđ",
    "cp1254": "ğışçöüİŞÇÖÜâîû",
    "cp1251": "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ",
    "koi8_r": "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
    "cp1253": "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώ",
    "cp1255": "אבגדהוזחטיכלמנסעפצקרשתךםןףץ",
    "cp1256": "ابتثجحخدذرزسشصضطظعغفقكلمنهويىةءآأؤإئ،؟؛" + "".join(map(chr, range(0x64B, 0x653))),
}
# The first bytes under which a national standard keeps its everyday characters.
_EVERYDAY_ROWS = {
    "shift_jis": ("euc_jp", range(0xB0, 0xD0)),
    "cp932": ("euc_jp", range(0xB0, 0xD0)),
    "gb18030": ("gb2312", range(0xB0, 0xD8)),
    "euc_jp": ("euc_jp", range(0xB0, 0xD0)),
    "big5": ("big5", range(0xA4, 0xC7)),
    "cp949": ("euc_kr", range(0xB0, 0xC9)),
}
_JAPANESE = ("shift_jis", "cp932", "euc_jp")
_ALPHABETS = {name: frozenset(letters + _PUNCTUATION) for name, letters in _LETTERS.items()}

# Most common first: the order decides where nothing else does.
_LEGACY = (
    *("cp1252", "shift_jis", "cp932", "gb18030", "cp1251", "koi8_r", "euc_jp", "big5", "cp949"),
    *("cp1250", "cp1253", "cp1254", "cp1255", "cp1256"),
)
_NAMES = {"koi8_r": "koi8-r", "euc_jp": "euc-jp"} | {
    f"cp125{digit}": f"windows-125{digit}" for digit in range(7)
}

_EXCERPT, _LEAD_IN = 20_000, 200
# Below this difference in doubt, readings count as level.
_LEVEL = 0.02
# Right guesses stay below 0.3 odd signs for each foreign one; most random bytes are above.
_FOREIGN_SHARE, _HOPELESS = 0.3, 0.35
# Names and classical words make a few per cent; random bytes nearly all.
_RARE_SHARE = 0.2


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
    excerpts = {codec: _excerpt(data, codec) for codec in _LEGACY}
    doubts = {codec: _doubt(text, codec) for codec, text in excerpts.items() if text is not None}
    if not doubts:
        return None
    least = min(doubts.values())
    codec = next(codec for codec, doubt in doubts.items() if doubt <= least + _LEVEL)
    if _is_hopeless(excerpts[codec] or "", codec):
        return None
    return _NAMES.get(codec, codec)


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


def _excerpt(data: bytes, codec: str) -> str | None:
    """Return the text from shortly before its first foreign character, None if undecodable."""
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return None
    first = re.search(r"[^\x00-\x7f]", text)
    start = max(0, (first.start() if first else 0) - _LEAD_IN)
    return text[start : start + _EXCERPT]


def _doubt(excerpt: str, codec: str) -> float:
    """Return how unlikely this reading is: lower is better."""
    # Each encoding alone: together they are dropped early, in favour of whichever came first.
    match = from_bytes(
        excerpt.encode(codec),
        cp_isolation=[codec],
        preemptive_behaviour=False,
        enable_fallback=False,
        threshold=0.9,
    ).best()
    mess = match.chaos - match.coherence if match else 1.0
    return _oddity(excerpt, codec) + 0.5 * mess


def _is_hopeless(excerpt: str, codec: str) -> bool:
    """Tell a page of odd signs from a plain text with a few, which is still text."""
    mostly_foreign = sum(char > "\x7f" for char in excerpt) > _FOREIGN_SHARE * len(excerpt)
    return mostly_foreign and _oddity(excerpt, codec) > _HOPELESS


def _oddity(excerpt: str, codec: str) -> float:
    """Return the share of characters beyond ASCII that texts in this encoding seldom have."""
    foreign = [char for char in excerpt if char > "\x7f"]
    return sum(_unexpected(char, codec) for char in foreign) / max(len(foreign), 1)


def _unexpected(char: str, codec: str) -> float:
    if _is_everyday(char, codec):
        return 0.0
    # Little for a capital: a heading may be all capitals, but KOI8 and 1251 differ by case alone.
    return 0.1 if char.isupper() and _is_everyday(char.lower(), codec) else 1.0


@lru_cache(maxsize=65_536)
def _is_everyday(char: str, codec: str) -> bool:
    if codec in _ALPHABETS:
        return char in _ALPHABETS[codec]
    if "\u3000" < char <= "\u3011" or "\uff01" <= char <= "\uff5e":
        return True
    if "\u3041" <= char <= "\u30fe":
        return codec in _JAPANESE
    standard, rows = _EVERYDAY_ROWS[codec]
    try:
        return char.encode(standard)[0] in rows
    except UnicodeEncodeError:
        return False


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
    if not "\u2e80" <= char <= "\uffff":
        return False
    return not any(_is_everyday(char, codec) for codec in _EVERYDAY_ROWS)
