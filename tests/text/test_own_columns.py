from __future__ import annotations

import io

import polars as pl
import pytest

from skipviz.errors import InputError, StoreError
from skipviz.text import own_columns
from skipviz.text.own_columns import in_token_order, read_own_table, showable_columns

TABLE = pl.DataFrame(
    {"token": [2, 0], "grade": ["hard", "easy"], "seconds": [1.5, 0.5], "list": [[1], [2]]}
)


def parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def test_a_table_is_read_from_both_kinds_of_file() -> None:
    plain = TABLE.drop("list")
    assert read_own_table(plain.write_csv().encode(), name="a.csv").equals(plain)
    assert read_own_table(parquet(TABLE), name="a.parquet").equals(TABLE)


def test_rows_are_put_in_the_order_of_the_tokens() -> None:
    ordered = in_token_order(TABLE, tokens=4, name="a.csv")
    assert ordered["grade"].to_list() == ["easy", None, "hard", None]
    assert "token" not in ordered.columns
    same = TABLE.drop("token")
    assert in_token_order(same, tokens=2, name="a.csv") is same


@pytest.mark.parametrize("word", ["", "nan", "NaN", "NA", "n/a", " null", "None", "#N/A"])
def test_a_number_that_is_missing_makes_no_text_of_a_column(word: str) -> None:
    content = f"whole,real,text\n1,{word},{word}\n{word},0.1234567890123,nan\n3,2,b\n"
    table = read_own_table(content.encode(), name="a.csv")
    assert table["whole"].to_list() == [1, None, 3]
    assert table["real"].to_list() == [None, 0.1234567890123, 2.0]
    assert table["text"].to_list()[1:] == ["nan", "b"]  # among texts it is one
    without = read_own_table(b"a,b\nNA,nan\nnone,x1\n", name="a.csv")
    assert without.dtypes == [pl.String, pl.String]


@pytest.mark.parametrize("kind", [pl.Int8, pl.UInt8, pl.UInt64])
def test_the_column_of_tokens_may_be_of_any_whole_numbers(kind: type[pl.DataType]) -> None:
    table = TABLE.with_columns(pl.col("token").cast(kind))
    ordered = in_token_order(table, tokens=1_000, name="a.parquet")
    assert ordered["grade"].head(4).to_list() == ["easy", None, "hard", None]
    assert ordered.height == 1_000
    with pytest.raises(InputError, match="row of token 2;"):
        in_token_order(table, tokens=2, name="a.parquet")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE.drop("token"), "a.csv has 2 rows and the text has 3 tokens"),
        (TABLE.with_columns(token=pl.Series([0, 3])), "row of token 3; the text has tokens 0 to 2"),
        (TABLE.with_columns(token=pl.Series([0, -1])), "row of token -1"),
        (TABLE.with_columns(token=pl.Series([1, 1])), "several rows of token 1"),
        (TABLE.with_columns(token=pl.Series([1, None])), "with 1 empty"),
        (TABLE.with_columns(token=pl.Series(["a", "b"])), "of type String"),
    ],
)
def test_rows_that_do_not_fit_the_text_are_refused(table: pl.DataFrame, said: str) -> None:
    with pytest.raises(InputError, match=said):
        in_token_order(table, tokens=3, name="a.csv")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1 is no table", b"a\n\xff\xfe\x00\n", b"a,b\n1\n1,2,3,4\n", b"token\n1\n"]
)
def test_what_is_no_table_is_one_kind_of_error(content: bytes) -> None:
    with pytest.raises(StoreError, match=r"a\.csv cannot be read as a table"):
        read_own_table(content, name="a.csv")


@pytest.mark.parametrize("write", [parquet, lambda table: table.write_csv().encode()])
def test_a_file_of_too_many_rows_is_refused(write, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(own_columns, "MOST_OWN_ROWS", 1)
    with pytest.raises(StoreError, match=r"1 rows|1 are the most"):
        read_own_table(write(TABLE.drop("list")), name="a")


def test_columns_of_numbers_and_of_text_can_be_shown() -> None:
    more = TABLE.with_columns(yes=pl.Series([True, False]), day=pl.Series(["2026-01-01"] * 2))
    assert showable_columns(more.with_columns(pl.col("day").str.to_date())) == [
        "grade", "seconds", "yes",
    ]  # fmt: skip
