"""Columns of a user's own: a file with one row per token, put in the order of a text's tokens."""

from __future__ import annotations

import io

import polars as pl

from skipviz.errors import InputError
from skipviz.parquet import one_kind_of_error, read_parquet_file

TOKEN_COLUMN = "token"
"""The column that says to which token each row belongs, where there is one."""
MOST_OWN_ROWS = 200_000
"""Rows that a file may have: as many tokens as a canvas shows."""
_PARQUET = b"PAR1"
_ADVICE = (
    "Give a CSV file in UTF-8 with the names of its columns in the first line, or a Parquet file."
)
_MISSING = ("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none")
"""What stands in a CSV file for a number that is not there, in small letters."""
_AS_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Boolean)


def read_own_table(content: bytes, *, name: str) -> pl.DataFrame:
    r"""Return the table in a CSV or Parquet file.

    Parameters
    ----------
    content
        The bytes of the file.
    name
        Of the file, for what is said where it cannot be read.

    Returns
    -------
    DataFrame
        As it is in the file. In a CSV file a column of numbers may have cells that are empty, or
        say ``NA``, ``nan`` and the like: they are null.

    Raises
    ------
    StoreError
        If it is neither, is too large, or has no column beside ``token``.

    Examples
    --------
    >>> read_own_table(b"token,grade\n0,easy\n1,hard\n", name="grades.csv").columns
    ['token', 'grade']
    >>> read_own_table(b"seconds\n0.5\nNA\n", name="seconds.csv")["seconds"].to_list()
    [0.5, None]
    """
    with one_kind_of_error(name, "a table", _ADVICE):
        if content.startswith(_PARQUET):
            table, _ = read_parquet_file(
                io.BytesIO(content), most_rows=MOST_OWN_ROWS, most_values=MOST_OWN_ROWS
            )
        else:
            read = pl.read_csv(
                io.BytesIO(content), infer_schema_length=None, n_rows=MOST_OWN_ROWS + 1
            )
            table = read.with_columns(_with_missing(each) for each in read)
        if table.height > MOST_OWN_ROWS:
            raise InputError(f"It has more than {MOST_OWN_ROWS:,} rows.")
        if not [each for each in table.columns if each != TOKEN_COLUMN]:
            raise InputError(f"It has no column beside {TOKEN_COLUMN!r}.")
    return table


def _with_missing(column: pl.Series) -> pl.Series:
    """Return a column with null for what says that a number is missing, if it has numbers."""
    if column.dtype != pl.String:
        return column.fill_nan(None) if column.dtype.is_float() else column
    words = column.str.strip_chars()
    words = words.set(words.str.to_lowercase().is_in(_MISSING), None)
    if words.null_count() == len(words):
        return column
    for kind in (pl.Int64, pl.Float64):
        numbers = words.cast(kind, strict=False)
        if numbers.null_count() == words.null_count():
            return numbers
    return column


def in_token_order(table: pl.DataFrame, *, tokens: int, name: str) -> pl.DataFrame:
    """Return a table with a row for each token of a text, in order.

    Parameters
    ----------
    table
        With the column ``token``, the index of each row's token from 0; or one row per token, in
        order.
    tokens
        Of the text.
    name
        Of the file, for what is said where it does not fit.

    Returns
    -------
    DataFrame
        The other columns; null for tokens that have no row.

    Raises
    ------
    InputError
        If rows and tokens do not fit each other.

    Examples
    --------
    >>> table = pl.DataFrame({"token": [2, 0], "grade": ["hard", "easy"]})
    >>> in_token_order(table, tokens=3, name="grades.csv")["grade"].to_list()
    ['easy', None, 'hard']
    """
    if TOKEN_COLUMN not in table.columns:
        if table.height != tokens:
            raise InputError(
                f"{name} has {table.height:,} rows and the text has {tokens:,} tokens. Give one "
                f"row per token in the order of the text, or a column {TOKEN_COLUMN!r} with the "
                "index of each row's token, from 0."
            )
        return table
    places = table[TOKEN_COLUMN]
    if not places.dtype.is_integer() or places.null_count():
        raise InputError(
            f"The column {TOKEN_COLUMN!r} of {name} must have a whole number in every row, the "
            f"index of its token from 0; it is of type {places.dtype}, with "
            f"{places.null_count():,} empty."
        )
    wrong = table.filter(~pl.col(TOKEN_COLUMN).is_between(0, tokens - 1))
    if wrong.height:
        raise InputError(
            f"{name} has a row of token {wrong[TOKEN_COLUMN][0]}; the text has tokens 0 to "
            f"{tokens - 1}. Take the rows of this text alone."
        )
    if places.n_unique() != table.height:
        twice = places.filter(places.is_duplicated())[0]
        raise InputError(f"{name} has several rows of token {twice}. Give one row per token.")
    # Of eight bits, say, the column itself could not name all tokens.
    table = table.with_columns(pl.col(TOKEN_COLUMN).cast(pl.Int64))
    order = pl.DataFrame({TOKEN_COLUMN: range(tokens)}, schema={TOKEN_COLUMN: pl.Int64})
    return order.join(table, on=TOKEN_COLUMN, how="left", maintain_order="left").drop(TOKEN_COLUMN)


def showable_columns(table: pl.DataFrame) -> list[str]:
    """Return the columns that hold numbers or text."""
    return [
        name
        for name, kind in table.schema.items()
        if name != TOKEN_COLUMN and (kind.is_numeric() or kind in _AS_TEXT)
    ]
