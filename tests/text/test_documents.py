from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipviz.errors import TextError
from skipviz.text.documents import Document, check_text, decode, read_bytes, read_path, read_stream

FRENCH = "Les élèves français étudient à l'école, où ils ont déjà mangé — ça va très bien."
RUSSIAN = "Все люди рождаются свободными и равными в своём достоинстве и правах. Как дела?"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
SAMPLES = [FRENCH, RUSSIAN, JAPANESE, CHINESE]

# Without control characters, which make a text binary.
plain_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))


def rows(*lines: str) -> bytes:
    return "\n".join(lines).encode()


class TestDecode:
    @given(plain_texts)
    def test_utf8_comes_back_as_it_was(self, text: str) -> None:
        decoded, encoding = decode(text.encode(), source="a.txt")
        # A leading byte order mark is not part of the text.
        assert decoded == text.removeprefix("\ufeff")
        assert encoding == "utf-8"

    @given(st.binary(max_size=200))
    def test_any_bytes_are_decoded_as_named_or_refused(self, data: bytes) -> None:
        try:
            text, encoding = decode(data, source="a.txt")
        except TextError:
            return
        assert data.decode(encoding).removeprefix("\ufeff") == text

    @pytest.mark.parametrize(
        ("text", "encoding", "named"),
        [
            (FRENCH, "cp1252", "windows-1252"),
            (FRENCH.replace("—", "-"), "latin-1", "windows-1252"),
            ("LÀ-BAS, LES ÊTRES SONT À CÔTÉ", "cp1252", "windows-1252"),
            ("café", "latin-1", "windows-1252"),
            ("It’s “fine” at £5 – naïve…", "cp1252", "windows-1252"),
            ("5 µm ± 3", "latin-1", "windows-1252"),
            (RUSSIAN, "koi8-r", "koi8-r"),
            (RUSSIAN, "cp1251", "windows-1251"),
            ("Привет, мир", "koi8-r", "koi8-u"),
            ("Привет, мир", "cp1251", "windows-1251"),
            (JAPANESE, "shift_jis", "shift_jis"),
            (JAPANESE, "euc-jp", "euc-jp"),
            ("日本語の本", "shift_jis", "shift_jis"),
            (CHINESE, "gb18030", "gb18030"),
            ("人人生而自由，在尊嚴和權利上一律平等。", "big5", "big5"),
            ("모든 인간은 태어날 때부터 자유로우며", "cp949", "cp949"),
            ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι", "cp1253", "windows-1253"),
            ("Wszyscy ludzie rodzą się wolni i równi pod względem", "cp1250", "windows-1250"),
            ("يولد جميع الناس أحراراً متساوين في الكرامة", "cp1256", "windows-1256"),
        ],
    )
    def test_old_encodings_are_recognised(self, text: str, encoding: str, named: str) -> None:
        assert decode(text.encode(encoding), source="a.txt") == (text, named)

    def test_an_old_encoding_is_recognised_far_into_a_file(self) -> None:
        text = "Plain English.\n" * 10_000 + RUSSIAN
        assert decode(text.encode("koi8-r"), source="a.txt") == (text, "koi8-r")

    @pytest.mark.parametrize("text", SAMPLES)
    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf16_needs_no_mark(self, text: str, encoding: str) -> None:
        assert decode(text.encode(encoding), source="a.txt") == (text, encoding)

    @pytest.mark.parametrize("text", [*SAMPLES, "", "a\0b"])
    @pytest.mark.parametrize(
        "encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
    )
    def test_a_mark_is_obeyed_and_dropped(self, text: str, encoding: str) -> None:
        data = ("\ufeff" + text).encode(encoding)
        assert decode(data, source="a.txt") == (text, encoding)

    @pytest.mark.parametrize("text", ["a\r\nb\rc\nd\u2028e\u0085f", "a\0b", "tick\b\x1b[0m\f\v ok"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_line_endings_and_nul_are_kept(self, text: str, encoding: str) -> None:
        assert decode(text.encode(encoding), source="a.txt")[0] == text

    @pytest.mark.parametrize(
        ("data", "looks"),
        [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
            (b"%PDF-1.7\nplain so far", "a PDF document"),
            (b"PK\x03\x04word/document.xml", "a ZIP archive"),
            (b"\x7fELF\x02\x01\x01", "a program (ELF)"),
            (b"\x1f\x8b\x08\0", "gzip-compressed data"),
            (b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff", "a GIF image"),
            (b"PAR1\x15\x04\x15\0\0\0", "a Parquet table"),
            (bytes(range(256)), "binary data"),
            (bytes(64), "binary data"),
            (b"\x01\x02\x03\x04 text \x05\x06", "binary data"),
            (b"text with a NUL\0 and another control\x01", "binary data"),
            (struct.pack("<40i", *range(40)), "binary data"),
            (struct.pack("<40f", *range(40)), "binary data"),
            (Random(0).randbytes(400), "binary data"),
        ],
    )
    def test_binary_is_named_and_refused(self, data: bytes, looks: str) -> None:
        with pytest.raises(TextError) as caught:
            decode(data, source="upload.txt")
        message = str(caught.value)
        assert message.startswith(f"upload.txt is not text: it looks like {looks}")
        assert all(suffix in message for suffix in (".txt", ".md", ".jsonl", "UTF-8"))

    def test_text_may_begin_like_a_binary_file(self) -> None:
        for start in ("GGUF", "RIFF", "MZ", "PAR1", "ID3"):
            assert decode(f"{start} is a name.".encode(), source="a.txt")[0].startswith(start)

    def test_bytes_of_no_encoding_are_refused(self) -> None:
        data = bytes(byte | 0x80 for byte in Random(0).randbytes(2000))
        with pytest.raises(TextError, match="no encoding that can be told"):
            decode(data, source="a.txt")

    def test_damaged_utf8_is_not_taken_for_an_old_encoding(self) -> None:
        data = (FRENCH + "\n").encode() + b"ab\xe9cd"
        with pytest.raises(TextError, match="byte 0xE9 on line 2"):
            decode(data, source="a.txt")

    def test_cut_utf8_is_said_to_be_cut(self) -> None:
        with pytest.raises(TextError, match="breaks off in the middle of a character"):
            decode((JAPANESE + "語").encode()[:-1], source="a.txt")

    @pytest.mark.parametrize("data", [b"\xff\xfea\0b", b"\xef\xbb\xbfab\xff", b"\xfe\xff\xd8\0"])
    def test_a_broken_file_with_a_mark_is_refused(self, data: bytes) -> None:
        with pytest.raises(TextError, match=r"is marked as UTF-\S+ but breaks off or is damaged"):
            decode(data, source="a.txt")

    def test_binary_behind_a_mark_is_refused(self) -> None:
        with pytest.raises(TextError, match="binary data"):
            decode(b"\xef\xbb\xbf" + bytes(40), source="a.txt")


class TestReadBytes:
    @pytest.mark.parametrize("name", ["a.txt", "a.md", "A.TXT", "notes.v2.Md"])
    def test_a_text_is_one_document(self, name: str) -> None:
        data = b"one\r\n\r\ntwo"
        assert read_bytes(data, name=name, limit=None) == [Document(name, "one\r\n\r\ntwo")]

    def test_the_encoding_is_told(self) -> None:
        (document,) = read_bytes(FRENCH.encode("cp1252"), name="a.txt", limit=None)
        assert (document.text, document.encoding) == (FRENCH, "windows-1252")

    @pytest.mark.parametrize(
        ("name", "found"),
        [("a.pdf", "ends in .pdf"), ("README", "has no extension"), (".txt", "has no extension")],
    )
    def test_other_extensions_are_refused(self, name: str, found: str) -> None:
        with pytest.raises(TextError, match=found) as caught:
            read_bytes(b"text", name=name, limit=None)
        assert all(suffix in str(caught.value) for suffix in (".txt", ".md", ".jsonl"))

    def test_the_limit_is_the_largest_size_allowed(self) -> None:
        assert read_bytes(b"abcd", name="a.txt", limit=4)
        with pytest.raises(TextError, match=r"has 5 bytes .* limit of 4 bytes"):
            read_bytes(b"abcde", name="a.txt", limit=4)

    @pytest.mark.parametrize("data", [b"", b" \r\n\t\n", b"\xef\xbb\xbf", "\u3000\u2028".encode()])
    @pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl"])
    def test_blank_files_are_refused(self, data: bytes, name: str) -> None:
        with pytest.raises(TextError, match=f"{name} is empty or blank"):
            read_bytes(data, name=name, limit=None)


class TestJsonLines:
    @given(
        st.lists(plain_texts.filter(lambda text: text.strip()), min_size=1),
        st.booleans(),
        st.sampled_from(["\n", "\r\n"]),
    )
    def test_rows_come_back_as_they_were(self, texts: list[str], ascii_: bool, end: str) -> None:
        data = end.join(json.dumps({"text": t}, ensure_ascii=ascii_) for t in texts).encode()
        documents = read_bytes(data, name="d.jsonl", limit=None)
        assert [document.text for document in documents] == texts

    def test_sources_count_blank_lines(self) -> None:
        data = rows("", '{"text": "one"}', "  ", '{"id": 7, "text": "two"}', "")
        sources = [document.source for document in read_bytes(data, name="d.jsonl", limit=None)]
        assert sources == ["d.jsonl:2", "d.jsonl:4"]

    def test_only_a_newline_ends_a_row(self) -> None:
        data = '{"text": "a\u2028b\u0085c\x7f"}'.encode()
        (document,) = read_bytes(data, name="d.jsonl", limit=None)
        assert document.text == "a\u2028b\u0085c\x7f"

    def test_other_encodings_work(self) -> None:
        data = json.dumps({"text": FRENCH}, ensure_ascii=False).encode("utf-16")
        (document,) = read_bytes(data, name="d.jsonl", limit=None)
        assert (document.text, document.encoding) == (FRENCH, "utf-16-le")

    def test_escaped_pairs_and_nul_are_characters(self) -> None:
        data = rows(r'{"text": "\ud83d\ude00\u0000"}')
        assert read_bytes(data, name="d.jsonl", limit=None)[0].text == "😀\0"

    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ('{"text": "cut', "not valid JSON (Unterminated string"),
            ("plain prose", "not valid JSON (Expecting value at column 1)"),
            ("[" * 200_000, "nested too deep"),
            ('{"text": ' + "1" * 5_000 + "}", "too many digits"),
            ('["text"]', "found a list"),
            ('"text"', "found a string"),
            ("12", "found a number"),
            ("null", "found null"),
            ("{}", "it is empty"),
            ('{"Text": "a", "id": 1}', 'its fields are "Text", "id"'),
            ('{"text": 3.5}', 'the field "text" is a number'),
            ('{"text": null}', 'the field "text" is null'),
            ('{"text": true}', 'the field "text" is true'),
            ('{"text": ["a"]}', 'the field "text" is a list'),
            ('{"text": {"a": 1}}', 'the field "text" is an object'),
            ('{"text": ""}', 'the field "text" is empty or blank'),
            (r'{"text": " \n"}', 'the field "text" is empty or blank'),
            (r'{"text": "a\ud800b"}', r"the lone surrogate \ud800"),
            (r'{"text": "\ude00\ud83d"}', r"the lone surrogate \ude00"),
        ],
    )
    def test_a_bad_row_is_told_by_its_line(self, line: str, found: str) -> None:
        data = rows('{"text": "good"}', "", line)
        with pytest.raises(TextError) as caught:
            read_bytes(data, name="d.jsonl", limit=None)
        assert str(caught.value).startswith("d.jsonl, line 3: ")
        assert found in str(caught.value)


class TestReadPath:
    def test_a_file_is_named_without_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_bytes(b"hello\r\n")
        assert read_path(tmp_path / "a.md") == [Document("a.md", "hello\r\n")]

    def test_rows_are_read_from_json_lines(self, tmp_path: Path) -> None:
        (tmp_path / "d.jsonl").write_bytes(rows('{"text": "a"}'))
        assert read_path(tmp_path / "d.jsonl") == [Document("d.jsonl:1", "a")]

    def test_an_unknown_extension_is_plain_text(self, tmp_path: Path) -> None:
        (tmp_path / "tool.py").write_bytes(b"print()")
        assert read_path(tmp_path / "tool.py") == [Document("tool.py", "print()")]

    def test_the_limit_holds(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"12345")
        assert read_path(tmp_path / "a.txt", limit=5)
        with pytest.raises(TextError, match="limit of 4 bytes"):
            read_path(tmp_path / "a.txt", limit=4)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(TextError, match=r"nope\.txt does not exist"):
            read_path(tmp_path / "nope.txt")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(TextError, match=r"is a folder"):
            read_path(tmp_path)

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.txt").write_bytes(b"secret")

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        # Not by chmod: the tests may run as root, who may read everything.
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(TextError, match=r"a\.txt may not be read by this user"):
            read_path(tmp_path / "a.txt")

    def test_a_name_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(TextError, match="cannot be read"):
            read_path(tmp_path / ("x" * 300 + ".txt"))

    @pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
    def test_a_name_that_is_not_utf8_can_be_written(self, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
        path.write_bytes(b"text")
        assert read_path(path)[0].source == "caf\ufffd.txt"


class TestReadStream:
    def test_it_is_one_text(self) -> None:
        assert read_stream(b'{"text": "a"}\n') == [Document("<stdin>", '{"text": "a"}\n')]

    def test_nothing_is_refused(self) -> None:
        with pytest.raises(TextError, match="<stdin> is empty or blank"):
            read_stream(b"")

    def test_the_limit_holds(self) -> None:
        with pytest.raises(TextError, match="limit of 4 bytes"):
            read_stream(b"12345", limit=4)


class TestCheckText:
    @pytest.mark.parametrize("text", ["a", " a\r\n", "\0", "<b>=1+1</b>", "<|im_start|>", "👩‍🚀"])
    def test_text_comes_back_unchanged(self, text: str) -> None:
        assert check_text(text) == text

    @pytest.mark.parametrize("text", ["", " ", "\r\n\t", "\u3000\u2003"])
    def test_blank_text_is_refused(self, text: str) -> None:
        with pytest.raises(TextError, match="empty or blank"):
            check_text(text)

    def test_half_a_pair_is_refused(self) -> None:
        with pytest.raises(TextError, match=r"U\+D83D\) as its character 3"):
            check_text("ab\ud83dc")
