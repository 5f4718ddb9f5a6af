"""Ask a dataset: what it holds, how often sites ran, how it differs from another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipviz.cli.inputs import check_file

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

    from skipviz.corpus.reading.dataset import CorpusDataset

Dataset = Annotated[str, typer.Argument(help="Folder of a dataset, or its address.")]
Csv = Annotated[Path | None, typer.Option(help="Write the table here.")]
_INTERVAL = "95% interval over documents"


def show_dataset(folder: Dataset, csv: Csv = None) -> None:
    """Say what a dataset holds: what ran, how many documents, and means over all tokens."""
    import skipviz
    from skipviz.cli.console import err, out
    from skipviz.corpus.questions.means import corpus_means

    check_file(csv)
    corpus = skipviz.open_corpus(folder)
    with err.working("Reading all tokens"):
        table = corpus_means(corpus, ["layers_used", "nll", "surprisal", "entropy"])
    _write(table, csv)
    out.print("\n".join(_about(corpus)), soft_wrap=True)
    out.print(_means_table(table.drop("error")))
    out.print(
        "Means over tokens: layers_used in layers, the others in nats per token. low to high is "
        f"the {_INTERVAL}.",
        soft_wrap=True,
    )


def rates(
    folder: Dataset,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own column; kind, what a token is by its text; phase; or source. Again for "
            "each combination of several."
        ),
    ] = None,
    csv: Csv = None,
) -> None:
    """Show for what share of tokens each site ran, with 95% intervals over documents."""
    import skipviz
    from skipviz.cli.console import err, out
    from skipviz.corpus.questions.means import corpus_rates
    from skipviz.readings.tokens.word_lists import KINDS_ARE_ENGLISH

    check_file(csv)
    corpus = skipviz.open_corpus(folder)
    with err.working("Reading all tokens"):
        table = corpus_rates(corpus, by=by)
    _write(table, csv)
    out.print(_means_table(table.drop("layer", "unit", "visit")))
    out.print(
        f"rate is the share of tokens for which a site ran, low to high its {_INTERVAL}."
        + (f" {KINDS_ARE_ENGLISH}" if "kind" in (by or ()) else ""),
        soft_wrap=True,
    )


def cluster_dataset(
    folder: Dataset,
    clusters: Annotated[
        int | None, typer.Option(min=1, help="How many; if not said, what the tokens show.")
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the documents that clusters are made on.")
    ] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of these documents.")] = 0,
    csv: Csv = None,
) -> None:
    """Group tokens by the layers they used, and store the cluster of every token.

    Clusters are made on documents drawn at random. The page Corpus then finds tokens by cluster.
    """
    import skipviz
    from skipviz.cli.console import err, out, progress
    from skipviz.corpus.questions.assignment import cluster_shares, store_clusters

    check_file(csv)
    corpus = skipviz.open_corpus(folder)
    sample = corpus.sample(tokens=tokens, seed=seed)
    with err.working("Grouping"):
        found = skipviz.cluster(sample.trace, clusters=clusters, seed=seed)
    with progress("Storing clusters", total=len(corpus), unit="tokens") as advance:
        store_clusters(corpus, found, progress=lambda share: advance(share * len(corpus)))
    with err.working("Counting"):
        table = cluster_shares(corpus, found)
    _write(table, csv)
    out.print(_means_table(table))
    groups = (
        "Tokens form groups." if found.found else "Tokens form no groups: clusters are parts of "
        "one, and another number of them would do as well."
    )  # fmt: skip
    out.print(
        f"{groups} Made on {sample.sentence}; stored for all {len(corpus):,} tokens. share is of "
        f"all tokens, low to high its {_INTERVAL}.",
        soft_wrap=True,
    )


def compare(
    first: Dataset,
    second: Annotated[str, typer.Argument(help="Another dataset of the same texts.")],
    csv: Annotated[Path | None, typer.Option(help="Write a row per document here.")] = None,
) -> None:
    """Compare two datasets on the documents that both have: second less first."""
    import polars as pl

    import skipviz
    from skipviz.cli.console import err, out

    check_file(csv)
    both = [skipviz.open_corpus(folder) for folder in (first, second)]
    with err.working("Comparing documents"):
        found = skipviz.compare_corpora(both[0], both[1])
    _write(found.documents, csv)
    same = int(found.documents["same_tokens"].sum())
    out.print(
        f"{found.documents.height:,} documents are in both, {same:,} of them with the same tokens; "
        f"{found.unmatched[0]:,} are only in the first and {found.unmatched[1]:,} only in the "
        "second.",
        soft_wrap=True,
    )
    changed = found.documents.select(pl.col("changed").cast(pl.Float64).mean()).item()
    if changed is not None:
        out.print(f"On average {changed:z.1%} of a document's decisions differ.", soft_wrap=True)
    out.print(_means_table(found.means))
    out.print(
        "Means over tokens: layers_used in layers, nll in nats, of sites the share of tokens for "
        f"which they ran. difference is second less first, low to high its {_INTERVAL}; q is p "
        "corrected for all rows (Benjamini and Hochberg).",
        soft_wrap=True,
    )


def _about(corpus: CorpusDataset) -> list[str]:
    run = corpus.run.row(0, named=True)
    budget = "" if run["budget"] is None else f", budget {run['budget']:g}"
    own = ", ".join(corpus.columns) or "none"
    failed = corpus.failed_count
    lines = [
        f"{corpus.document_count:,} documents, {len(corpus):,} tokens, "
        f"{len(corpus) * corpus.sites.height:,} decisions of {corpus.sites.height} sites.",
        f"Model {run['model']}, policy {run['policy']}{budget}, {run['dtype']}.",
        f"Columns of your own: {own}. Further tables: {', '.join(corpus.analyses) or 'none'}.",
    ]
    if failed:
        lines.append(f"{failed:,} documents could not be traced.")
    if not corpus.complete:
        lines.append("The run has not ended: these are the parts that are complete.")
    return lines


def _means_table(frame: pl.DataFrame) -> Table:
    """Return a table whose numbers have three decimals, and whose unknown values say so."""
    import polars as pl
    from rich.table import Table

    table = Table()
    for name, kind in frame.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(
            *(
                "unknown" if value is None
                else f"{value:z.3f}" if kind == pl.Float64
                else f"{value:,}" if kind.is_integer()
                else str(value)
                for value, kind in zip(row, frame.dtypes, strict=True)
            )
        )  # fmt: skip
    return table


def _write(frame: pl.DataFrame, csv: Path | None) -> None:
    from skipviz.atomic import write_csv
    from skipviz.tables import csv_safe

    if csv is not None:
        write_csv(csv_safe(frame), csv)
