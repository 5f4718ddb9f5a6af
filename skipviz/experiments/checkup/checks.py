"""Every check by its code. A code keeps its meaning; one that is given up is not used again."""

from __future__ import annotations

from skipviz.analysis.findings import Check
from skipviz.experiments.checkup import invariance, meaning, saving

CHECKS = (
    Check(
        code="SKV001",
        title="Recording changes nothing",
        detected=(
            "The text is run with and without a recorder. An issue if one bit of the logits "
            "differs."
        ),
        matters="What is recorded is not what the model does by itself.",
        advice="Make what the family's hooks return None, and have them change no tensor in place.",
        of_model=invariance.recording_changes_nothing,
    ),
    Check(
        code="SKV002",
        title="Forced replay reproduces the run",
        detected=(
            "The observed decisions are forced, then the opposite ones, or others at random where "
            "a unit cannot be decided alone. An issue if logits move by more than "
            f"{invariance.LOGITS:g}, or a decision is not obeyed."
        ),
        matters="Counterfactuals, the audit and plans show something else than what they name.",
        advice="Look at the gate's description: its polarity, its threshold, and what it reads.",
        of_model=invariance.replay_reproduces,
    ),
    Check(
        code="SKV003",
        title="Later tokens leave earlier decisions alone (causal)",
        detected=(
            "Tokens from the middle, from three quarters and at the end are exchanged. An issue if "
            f"one earlier decision moves, ties apart, or a score by more than {meaning.SCORES:g}."
        ),
        matters=(
            "Decisions on a whole text differ from those while generating, and losses of a whole "
            "text are too good: routing sees what is to be predicted."
        ),
        advice="Record while generating, and do not compare losses with those of causal models.",
        of_model=meaning.later_tokens_change_nothing,
    ),
    Check(
        code="SKV004",
        title="Decoding from a cache agrees with a whole forward",
        detected=(
            f"The last {invariance.DECODED} tokens are run one by one from a cache. An issue if "
            "one decision differs, ties apart, from those of one forward."
        ),
        matters="A trace of a text does not show what happens while the model generates it.",
        advice="Record generation itself with skipviz.record.",
        of_model=invariance.cached_decoding_agrees,
    ),
    Check(
        code="SKV005",
        title="A text is decided in a padded batch as alone",
        detected=(
            "Half of the text is run alone and beside a longer one. A tip if one decision differs, "
            "an issue if the family says that none does."
        ),
        matters="Figures depend on what else was in the batch.",
        advice="skipviz.trace runs each text alone unless the family says otherwise; do the same.",
        of_model=invariance.alone_as_in_a_batch,
    ),
    Check(
        code="SKV006",
        title="Two seeds agree (deterministic)",
        detected="The text is run under seeds 0 to 3. An issue if one decision differs.",
        matters="A trace shows one draw of many; another run of the same text decides otherwise.",
        advice="Trace with several seeds and report how far they differ.",
        of_model=invariance.seeds_agree,
    ),
    Check(
        code="SKV007",
        title="Score against threshold says what ran",
        detected="The sign of each margin is compared with the decision. An issue if one differs.",
        matters="Margins and what is made of scores point the wrong way, or at another layer.",
        advice="Correct the rule, the threshold or the polarity of the gates.",
        of_trace=meaning.scores_say_what_ran,
    ),
    Check(
        code="SKV008",
        title="A skipped unit adds nothing to its token (polarity)",
        detected=(
            "The hidden states before and after each unit are compared bit by bit. An issue if a "
            "unit that is said to be skipped added something, or one that ran did not."
        ),
        matters="What is shown as run may be skipped, or belong to another layer.",
        advice="Turn the polarity (executes: low), or correct the numbers of the layers.",
        of_model=meaning.skipped_units_add_nothing,
    ),
    Check(
        code="SKV009",
        title="The loss shown is that of the model that skips",
        detected=(
            "Losses of the trace are compared with those of a whole forward. An issue if one is "
            f"more than {meaning.LOSS_APART:g} nats off, or missing."
        ),
        matters="Savings of one model stand beside the loss of another.",
        advice="Report it: skipviz takes losses from the model's own output.",
        of_model=meaning.loss_is_its_own,
    ),
    Check(
        code="SKV010",
        title="What is skipped is not computed",
        detected=(
            "The tokens that linear layers of each unit are given are counted. A tip if more than "
            f"{saving.SAVED:.0%} of what was skipped is computed, an issue if the sites say "
            "that it is not. Where decisions can be forced, the time of runs with its own and with "
            "every unit run is compared, in turns."
        ),
        matters="FLOPs that the decisions imply are not saved: no time and no energy is.",
        advice=(
            "Read a budget as what a runtime could save, and measure time on your own texts before "
            "promising it."
        ),
        of_model=saving.skipped_is_not_computed,
    ),
    Check(
        code="SKV011",
        title="Every gate chooses",
        detected="A tip if a site runs for all tokens of the text or for none, or gives no score.",
        matters="A gate that does not choose is a static policy at its layer.",
        advice="Look at a longer text; if it stays so, the gate has collapsed in training.",
        of_trace=saving.gates_choose,
    ),
    Check(
        code="SKV012",
        title="bfloat16 decides the same",
        detected=(
            "The text is run with matrix products in bfloat16. A tip if more than "
            f"{saving.ROUNDED:.0%} of decisions flip."
        ),
        matters="A model that serves in bfloat16 decides otherwise than its trace in float32.",
        advice="Trace in the type that the model serves in, dtype='bfloat16'.",
        of_model=saving.bfloat16_decides_the_same,
    ),
    Check(
        code="SKV013",
        title="The budget asked for is realised",
        detected="An issue if they lie more than 0.02 apart on this text.",
        matters="Loss at another budget is compared with losses at the one asked for.",
        advice="skipviz calibrate MODEL --budget B --text FILE sets thresholds for such texts.",
        of_trace=saving.budget_is_realised,
    ),
    Check(
        code="SKV014",
        title="Units run at most once for a token",
        detected=(
            "A tip if a unit ran for a token more often. With the model at hand, an issue if more "
            "tokens went through its linear layers than are counted."
        ),
        matters="Layers used can exceed the number of layers; they are runs, not places.",
        advice="Read depth as runs of layers.",
        of_model=saving.repeats_are_counted,
        of_trace=saving.units_run_once,
    ),
)
"""All checks, by code."""
