"""What is recorded elsewhere comes back as it was, and what is broken gets a sentence."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import skipviz
from skipviz import plots
from skipviz.analysis.flops import cost_summary
from skipviz.errors import TraceError
from skipviz.readings.paths import cost_reading
from skipviz.recorder_kit import Recorder
from skipviz.recording.recorded_file import open_recording, read_recording
from tests.cli.runner import run

LAYERS, WIDTH = 3, 8
SITES = [{"layer": layer, "unit": "mlp", "rule": "gt", "polarity": 1} for layer in range(LAYERS)]


class Router(nn.Module):
    """A stack of layers whose MLPs a router switches, as nobody here wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"router": nn.Linear(WIDTH, 1), "mlp": nn.Linear(WIDTH, WIDTH)})
            for _ in range(LAYERS)
        )

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        scores = []
        for layer in self.layers:
            score = layer["router"](hidden)
            hidden = hidden + layer["mlp"](hidden) * (score > 0)
            scores.append(score[..., 0])
        return hidden, scores


def read(module: Any, inputs: Any, output: torch.Tensor) -> dict[str, Any]:
    return {"score": output[..., 0], "threshold": 0.0, "ran": output[..., 0] > 0}


def test_a_class_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Recorder(path, sites=SITES, layers=LAYERS) as r:
        told = {"class_label": [["good", "good"]], "class_prob": [[0.75, 0.75]]}
        r.tokens([["a", " b"]], **told)
        r.gate(0, ran=True)
        r.tokens([["c"]])
    tokens = open_recording(path)[0].tokens
    assert tokens["class_label"].to_list() == ["good", "good", None]
    assert tokens["class_prob"].to_list() == [0.75, 0.75, None]


def test_a_batch_with_padding_and_a_decoded_token_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Router().eval(), tmp_path / "run.jsonl"
    prompt, step = torch.randn(2, 3, WIDTH), torch.randn(2, 1, WIDTH)
    with torch.no_grad(), Recorder(path, sites=SITES, model="mine", layers=LAYERS) as r:
        r.hook(model, "layers.{layer}.router", read, unit="mlp")
        r.tokens([["The", " cat", " sat"], ["A", " dog", None]], id=[[5, 6, 7], [8, 9, None]])
        recorded, scores = model(prompt)
        r.tokens([["."], ["!"]], sequences=[0, 1], phase=[["decode"], ["decode"]])
        model(step)
    with torch.no_grad():
        plain, _ = model(prompt)
        later = model(step)[1]
    assert torch.equal(recorded, plain)
    trace, cut = open_recording(path)
    assert cut == 0
    assert trace.tokens["text"].to_list() == ["The", " cat", " sat", ".", "A", " dog", "!"]
    assert trace.tokens["position"].to_list() == [0, 1, 2, 3, 0, 1, 2]
    assert trace.tokens["token_id"].to_list() == [5, 6, 7, None, 8, 9, None]
    assert trace.tokens["phase"].to_list() == [None, None, None, "decode", None, None, "decode"]
    rows = [(scores, 0, t) for t in range(3)] + [(later, 0, 0)]
    rows += [(scores, 1, t) for t in range(2)] + [(later, 1, 0)]
    expected = np.array([[float(site[b, t]) for site in of] for of, b, t in rows], np.float32)
    np.testing.assert_array_equal(trace.matrix("score"), expected)
    np.testing.assert_array_equal(trace.matrix("exec_count"), expected > 0)
    assert (trace.matrix("threshold") == 0).all()
    assert trace.run.row(0, named=True)["mlp_flops"] is None
    assert trace.tokens["nll"].null_count() == len(trace)
    trace.save(tmp_path / "trace.parquet")
    assert skipviz.Trace.load(tmp_path / "trace.parquet").tokens.equals(trace.tokens)


class Loop(nn.Module):
    """One layer, run again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])

    def forward(self, hidden: torch.Tensor, times: int) -> torch.Tensor:
        for _ in range(times):
            hidden = self.layers[0](hidden)
        return hidden


def ran_once(module: Any, inputs: Any, output: torch.Tensor) -> dict[str, Any]:
    return {"ran": 1, "score": output[..., 0]}


def test_firings_go_to_the_visits_of_a_layer_or_add_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, hidden = Loop(), torch.randn(1, 2, WIDTH)
    block: dict[str, Any] = {"layer": 0, "unit": "block"}
    apart, together = [block | {"visit": visit} for visit in (1, 0, 2)], [block]
    for sites in (apart, together):
        with torch.no_grad(), Recorder(tmp_path / "run.jsonl", sites=sites, layers=1) as r:
            r.hook(model, "layers.{layer}", ran_once, unit="block")
            for text, times in (("a", 3), ("b", 2)):  # the second token does not visit thrice
                r.token(text, sequence=0)
                model(hidden[:, :1], times)
        trace, _ = open_recording(tmp_path / "run.jsonl")
        assert trace.tokens["layers_used"].to_list() == [3, 2]
        ran = trace.matrix("exec_count").tolist()
        assert ran == ([[1, 1, 1], [1, 1, 0]] if sites is apart else [[3], [2]])
    with Recorder(tmp_path / "run.jsonl", sites=apart, layers=1) as r:
        r.hook(model, "layers.{layer}", ran_once, unit="block")
        r.token("a")
        with pytest.raises(ValueError, match="has 3 visits, and fired once more"):
            model(hidden[:, :1], 4)


def test_stacks_of_layers_are_told_apart_by_where_they_begin(tmp_path: Path) -> None:
    model = nn.ModuleDict({"low": Loop(), "high": Loop()})
    sites = [{"layer": layer, "unit": "block"} for layer in range(2)]
    with torch.no_grad(), Recorder(tmp_path / "run.jsonl", sites=sites, layers=2) as r:
        r.hook(model, "low.layers.{layer}", ran_once, unit="block")
        r.hook(model, "high.layers.{layer}", ran_once, unit="block", first=1)
        r.tokens([["a"]], phase=[["draft"]])
        model["low"](torch.randn(1, 1, WIDTH), 3)
        model["high"](torch.randn(1, 1, WIDTH), 1)
    trace, _ = open_recording(tmp_path / "run.jsonl")
    assert trace.matrix("exec_count").tolist() == [[3, 1]]
    trace.save(tmp_path / "trace.parquet")
    assert skipviz.Trace.load(tmp_path / "trace.parquet").tokens["phase"].to_list() == ["draft"]


def test_scores_of_tokens_that_were_not_asked_are_unknown(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.jsonl", sites=SITES, layers=LAYERS) as r:
        r.tokens([["a", "b", "c"]])
        r.gate(0, ran=[1, 0, 0], score=[0.5, torch.nan, -0.5], threshold=0.0)
        r.gate(0, ran=0, score=[torch.nan, torch.nan, -1.5])  # asked again: the last known stands
    trace, _ = open_recording(tmp_path / "run.jsonl")
    np.testing.assert_array_equal(trace.matrix("score")[:, 0], [0.5, np.nan, -1.5])
    assert trace.matrix("exec_count")[:, 0].tolist() == [1, 0, 0]


def test_repeats_add_up_and_a_site_that_was_not_asked_did_not_run(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.jsonl", sites=SITES, layers=LAYERS) as r:
        r.token("a")
        r.gate(0, ran=1)
        r.gate(0, ran=2, score=0.5)
        r.gate(2, ran=[1])
    trace, _ = open_recording(tmp_path / "run.jsonl")
    assert trace.matrix("exec_count").tolist() == [[3, 0, 1]]
    assert trace.matrix("score")[0, 0] == 0.5
    assert np.isnan(trace.matrix("score")[0, 1:]).all()
    assert trace.tokens["layers_used"].to_list() == [3.5]  # half a layer per MLP run


def test_after_a_crash_tokens_whose_sites_all_fired_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with pytest.raises(RuntimeError), Recorder(path, sites=SITES, layers=LAYERS) as r:  # noqa: PT012
        for text in "ab":
            r.token(text, sequence=0)
            r.gate(0, ran=1)
        raise RuntimeError("out of memory")
    trace, cut = open_recording(path)
    assert (trace.tokens["text"].to_list(), cut) == (["a"], 1)
    whole = path.read_bytes()
    for length in range(len(whole)):  # cut off anywhere, as by a full disk
        try:
            shorter, _ = read_recording(io.BytesIO(whole[:length]), name="run.jsonl")
        except TraceError:
            continue
        assert shorter.tokens["text"].to_list() == ["a"]


def test_a_wrong_number_of_values_is_said_where_it_happens(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.jsonl", sites=SITES, layers=LAYERS) as r:
        r.tokens([["a", "b"]])
        with pytest.raises(ValueError, match="ran has 3 values for 2 tokens"):
            r.gate(0, ran=[1, 0, 1])
        with pytest.raises(ValueError, match="site=3 is not one of the 3 sites"):
            r.gate(3, ran=1)
        with pytest.raises(ValueError, match=r"there are .*layers\.0\.router"):
            r.hook(Router(), "layers.{layer}.gate", read, unit="mlp")


HEAD = {"kind": "recording", "format": 1, "layers": 2, "sites": [{"layer": 0, "unit": "mlp"}]}
TOKENS = {"kind": "tokens", "text": ["a", "b"]}
GATE = {"kind": "gate", "site": 0, "token": 0, "ran": [1, 0], "score": [0.5, None]}
END = {"kind": "end"}


def written(*lines: Any) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([TOKENS], "line 1: kind is 'tokens' and must be recording"),
        ([HEAD | {"format": 2}], "line 1: at format"),
        ([HEAD | {"layer": 3}], "'layer' was unexpected"),
        ([HEAD | {"sites": [{"layer": 0, "unit": "moe"}]}], "'moe' is not one of"),
        ([HEAD | {"sites": HEAD["sites"] * 2}], "the site L0.mlp stands there twice"),
        ([HEAD | {"layers": 1, "sites": [{"layer": 1, "unit": "mlp"}]}], "beyond the model's 1"),
        ([HEAD, TOKENS | {"nll": [1.0]}], "nll has 1 entries and text 2"),
        ([HEAD, TOKENS | {"text": [1, "b"]}], "1 is not of type 'string'"),
        ([HEAD, TOKENS, GATE | {"site": 1}], "site 1 is not one of the 1 sites"),
        ([HEAD, TOKENS, GATE | {"ran": [1]}], "score has 2 values for 1 tokens"),
        ([HEAD, TOKENS, GATE | {"token": 1}], "it names token 2, and the lines before have 2"),
        ([HEAD, TOKENS, GATE | {"token": [0, 0]}], "non-unique"),
        ([HEAD, TOKENS, GATE | {"ran": [1, -1]}], "at ran"),
        ([HEAD, TOKENS, GATE | {"p_execute": [0.5, 1.5]}], "at p_execute"),
        ([HEAD, TOKENS, GATE | {"score": {"float32": "AAA"}}], "score cannot be unpacked"),
        ([HEAD, TOKENS, GATE | {"score": {"float32": "AACAfwAAAAA="}}], "that are not finite"),
        ([HEAD, TOKENS, GATE | {"ran": [1, None]}], "at ran"),
        ([HEAD, TOKENS | {"nll": [-1.0, None]}, GATE, END], "tokens.nll is -1.0"),
        ([HEAD, TOKENS | {"nll": [1.0, None], "surprisal": [None, 5.0]}, GATE, END],
         "surprisal that is not the loss of the token before"),
        ([HEAD, TOKENS | {"source": ["a", "b"]}, GATE, END], "of another source"),
        ([HEAD, TOKENS, END, TOKENS], "line 4: it stands after the end"),
        ([HEAD, END], "no token whose sites were all recorded"),
        ([HEAD | {"model": "\ud800"}], "half a character"),
        ([HEAD, TOKENS | {"text": ["\udfff", "b"]}], "line 2: it has half a character"),
        ([HEAD, TOKENS | {"nll": [10**400, 1]}], "nll has values that are not finite"),
        ([HEAD, TOKENS | {"class_prob": [0.5, 1.5]}], "at class_prob"),
        ([HEAD, TOKENS | {"class_prob": [0.5, None]}, GATE, END], "class that is not named"),
        ([HEAD, TOKENS | {"entropy": [1e39, 1]}], "entropy has values that are not finite"),
        ([HEAD, TOKENS, GATE | {"score": [1, 10**400]}], "score has values that are not finite"),
        ([HEAD, TOKENS, GATE | {"score": [1, 1e39]}], "score has values that are not finite"),
        ([HEAD, TOKENS, GATE | {"token": 10**30}], "and the lines before have 2"),
        ([HEAD, TOKENS, GATE | {"token": [0, 10**30]}], "and the lines before have 2"),
        ([[]], "not a JSON object"),
        ([], "is empty"),
    ],
)  # fmt: skip
def test_what_breaks_the_format_gets_a_sentence(lines: list[Any], said: str) -> None:
    with pytest.raises(TraceError) as caught:
        read_recording(written(*lines), name="run.jsonl")
    assert said in str(caught.value)
    assert "run.jsonl" in str(caught.value)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    plain = read_recording(written(HEAD, TOKENS, GATE, END), name="run.jsonl")
    pointed = GATE | {"site": 0.0, "token": 0.0}
    found = read_recording(written(HEAD, TOKENS, pointed, END), name="run.jsonl")
    assert repr(found) == repr(plain)


def test_a_token_that_ran_no_site_left_before_the_first_where_states_are_propagated() -> None:
    site = {"layer": 2, "unit": "block"}
    for kv, depth in (("propagated", 1), ("absent", None)):
        head = HEAD | {"layers": 4, "sites": [site | {"kv": kv}]}
        lines = written(head, TOKENS, GATE | {"ran": [0, 1]}, END)
        trace, _ = read_recording(lines, name="run.jsonl")
        assert trace.tokens["exit_depth"].to_list() == [depth, 2]
        file = io.BytesIO()
        trace.save(file)
        assert skipviz.Trace.load(file).tokens.equals(trace.tokens)


def test_nothing_but_a_sentence_comes_of_damaged_files() -> None:
    whole, draw = written(HEAD, TOKENS, GATE, END).getvalue(), random.Random(0)
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.choice(b'0123456789"{}[],:-.eabN\x00\xff')
        try:
            trace, _ = read_recording(io.BytesIO(bytes(damaged)), name="run.jsonl")
        except TraceError:
            continue
        assert set(np.unique(trace.matrix("exec_count"))) <= set(range(256))


def test_a_command_makes_a_trace_that_opens_everywhere(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.jsonl", sites=SITES, layers=LAYERS, model="<b>mine</b>") as r:
        r.tokens([["The", " cat", " sat"]])
        for site in range(LAYERS):
            r.gate(site, ran=[1, 0, 2], score=[0.5, -0.5, 1.5], threshold=0.0)
    outcome = run("import", tmp_path / "run.jsonl", "-o", tmp_path / "trace.parquet")
    assert outcome.exit_code == 0, outcome.stderr
    trace = skipviz.Trace.load(tmp_path / "trace.parquet")
    assert trace.matrix("exec_count").tolist() == [[1] * 3, [0] * 3, [2] * 3]
    assert cost_summary(trace).flop_share is None
    trace.write_csv(io.BytesIO())
    for figure in (
        plots.layers_used_histogram, plots.execution_rate_by_layer, plots.compute_share_figure,
        plots.layer_map, plots.token_html,
    ):  # fmt: skip
        figure(trace)
    plots.token_path(trace, 1)
    assert "unknown" in cost_reading(trace, cost_summary(trace))
    assert run("import", tmp_path / "absent", "-o", tmp_path / "x").exit_code == 1
