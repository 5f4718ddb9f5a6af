"""A dataset in an object store, from texts in one."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import skipviz
from skipviz.corpus import object_lock
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.verifying import damaged_files
from tests.corpus import datasets
from tests.corpus.conftest import PART

Run = Callable[..., skipviz.CorpusSummary]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of a local server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # what another server of this process was given is gone
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("texts")
    yield "s3://texts"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("default")
def test_texts_and_dataset_lie_in_an_object_store(
    run: Run,
    texts: Path,
    tmp_path: Path,
    bucket: str,
    gated: skipviz.SkipModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import s3fs

    run(out="local")
    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.put_file(str(texts), f"{bucket}/in/{texts.name}")
    where = f"{bucket}/out"
    folder = DatasetFolder(where)
    made = folder.stage("tokens/000000-x.parquet", b"left by a kill", rows=0)
    for number in range(2):
        skipviz.trace_corpus(gated, f"{bucket}/in", out=where, part_characters=PART)
        assert not store.exists(f"{where}/{made.under}")
        fetched = tmp_path / f"fetched-{number}"
        store.get(where, str(fetched), recursive=True)
        assert datasets.contents(fetched) == datasets.contents(tmp_path / "local")
    assert damaged_files(where).damaged == {}
    assert not store.exists(f"{where}/.lock")
    monkeypatch.setattr(object_lock, "LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(object_lock, "BEAT_SECONDS", 0.1)
    with folder.held():
        assert store.exists(f"{where}/.lock")
        with pytest.raises(skipviz.InputError, match="Another run, process"):
            skipviz.trace_corpus(gated, f"{bucket}/in", out=where, part_characters=PART)
    with pytest.raises(skipviz.InputError, match="has no file"):
        skipviz.trace_corpus(gated, f"{bucket}/nothing", out=f"{bucket}/none")
