"""Workers of a Ray cluster write the same files, and a lost node loses nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import skipviz
from skipviz.corpus import on_ray
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.on_ray import Workers
from skipviz.corpus.summaries import CorpusProgress
from skipviz.corpus.work import CorpusSettings
from tests.corpus import datasets
from tests.corpus.conftest import rows, write_rows
from tests.corpus.loading import tiny_gated

Run = Callable[..., skipviz.CorpusSummary]
ROOT = Path(__file__).parents[2]


def test_without_ray_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(skipviz.MissingExtraError, match=r"pip install 'skipviz\[ray\]'"):
        run(engine="ray", model=tiny_gated)


def test_ray_needs_a_function_that_loads(run: Run) -> None:
    with pytest.raises(skipviz.InputError, match="a function that loads the model"):
        run(engine="ray")


def test_a_cluster_that_does_not_start_is_said() -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nMore")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    with (
        pytest.raises(skipviz.InputError, match=r"started \(The current node timed out during"),
        on_ray._connected(ray),
    ):
        pass


def test_a_model_that_no_worker_can_load_ends_the_run(tmp_path: Path) -> None:
    class Failed(Exception):
        actor_init_failed = True

    def get(*_: Any, **__: Any) -> None:
        raise Failed("The actor died, ray::PartActor.__init__()\nModelError: no model x")

    actor = SimpleNamespace(ready=SimpleNamespace(remote=lambda: "reference"))
    ray = SimpleNamespace(
        exceptions=SimpleNamespace(RayTaskError=RuntimeError, RayError=Failed),
        remote=lambda **_: lambda _: SimpleNamespace(remote=lambda *_: actor),
        wait=lambda asked, **_: (asked[:1], []),
        get=get,
        kill=lambda _: None,
    )
    pool = on_ray._Pool(
        ray, tiny_gated, folder=DatasetFolder(tmp_path), workers=Workers(),
        settings=CorpusSettings(part_characters=1),
    )  # fmt: skip
    with pytest.raises(skipviz.InputError, match=r"could not load the model \(ModelError: no mod"):
        next(pool.results(iter(()), None))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without room for workers, and two nodes with room for one each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("default")
def test_one_of_two_nodes_is_killed_half_way(
    run: Run, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "PART_SECONDS", 60.0)
    monkeypatch.setattr(on_ray, "START_SECONDS", 120.0)
    source = write_rows(tmp_path / "many.jsonl", rows(80))
    run(out="whole", inputs=source)
    killed = threading.Event()

    def half_way(progress: CorpusProgress) -> None:
        if progress.documents >= 30 and not killed.is_set():
            killed.set()
            cluster.remove_node(cluster.nodes[1], allow_graceful=False)

    summary = run(
        inputs=source, model=tiny_gated, engine="ray", workers=Workers(count=2), report=half_way
    )
    assert killed.is_set()
    assert summary.documents == 80
    assert datasets.contents(tmp_path / "corpus") == datasets.contents(tmp_path / "whole")
    datasets.is_whole(tmp_path / "corpus")
