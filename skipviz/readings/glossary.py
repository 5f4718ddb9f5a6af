"""The words of skipviz: one table, a sentence a term, for help texts, pages and documentation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        # What is run.
        "backbone": "The dense transformer that a model with gates is built on.",
        "dense model": "The backbone with nothing skipped: every layer runs for every token.",
        "unit": "What can be skipped at a layer: the whole block, its attention, or its MLP.",
        "site": "A place where a decision is taken: a layer, a unit, and how often the layer was "
        "visited before.",
        "gate": "The small module at a site that decides for each token whether the unit runs.",
        "gate score": "The number that a gate gives a token, on the gate's own scale.",
        "p_execute": "The gate score as a probability of running the unit, where the model family "
        "defines one.",
        "threshold": "The score at which a decision changes from skipping to running.",
        "rule": "How scores become decisions: greater than a threshold, the top k of the tokens, "
        "a fixed schedule, and so on.",
        "polarity": "Whether a high score means running (+1) or skipping (-1).",
        "executed": "How often a unit ran for a token: 0 (skipped), 1, or more if layers repeat.",
        "skip path": "What replaces a skipped unit: nothing (identity), a small adapter, or zeros.",
        "kv": "What later tokens see of a token that skipped a layer's attention: keys and values "
        "that were computed all the same, copied, or none.",
        "scope": "For whom one decision is taken: a token, a window, a sequence, or a batch.",
        "policy": "What decides: learned gates, a confidence rule, a fixed or random choice, or a "
        "plan set by hand.",
        "guarded policy": "Learned gates whose threshold was chosen so that the loss stays within "
        "a stated limit of the dense model's.",
        "Student's t test": "A test of a mean: it holds for many documents of which none loses far "
        "more than the others, and promises too much where a few do.",
        "clipped loss": "A document's loss over dense, counted up to a stated bound only: of its "
        "mean a limit can be promised whatever the distribution, and nothing of what lies beyond.",
        "early exit": "A token stops at a layer and is predicted from there; no layer above runs "
        "for it.",
        "runtime": "How decisions are carried out: masked (everything is computed, skipped results "
        "are discarded) or gathered (only what runs is computed).",
        "prefill": "The run over a whole prompt at once, before the first token is written.",
        "decode": "The runs that write a text token by token, each over the newest token and the "
        "keys and values kept of those before.",
        "temperature": "How a next token is chosen when a text is written: 0 takes the most likely "
        "one, and the higher it is, the more often less likely ones are drawn.",
        # What is measured.
        "trace": "The record of one run: every token, every decision, and where they came from.",
        "layers used": "How many layers ran for a token; attention and MLP count half each where "
        "they have separate gates, and layers without gates always count.",
        "exit depth": "The layer at which a token left early; otherwise the deepest layer with a "
        "gate that ran for it, or, where layers are visited again, the last of their runs; unknown "
        "where none ran and nothing says that the token left.",
        "depth profile": "A token's decisions, or its gate scores, at all sites in order.",
        "nat": "The unit of loss: a loss of 1 nat means that the token had a probability of "
        "1/e, about 37%.",
        "loss": "How badly the next token was predicted: minus the logarithm of its probability, "
        "in nats.",
        "predicted class": "What a model that reads a text as a whole says of it, as its "
        "configuration names it; its probability is the softmax of the model's own logits.",
        "surprisal": "How unexpected this token was after the text before it: minus the logarithm "
        "of its probability, in nats.",
        "entropy": "How undecided the prediction is, in nats: 0 if one token is certain.",
        "loss over dense": "The loss minus the dense model's loss on the same tokens; positive "
        "means that skipping made the prediction worse.",
        "budget": "FLOPs of attention (without keys and values), MLP, adapters and gates, as a "
        "share of the dense model's; layers without gates count as run.",
        "equal budget": "The same budget realised on the same texts: as measured where a policy "
        "met it within 0.005, otherwise on the line between the two budgets that it realised "
        "around it, and no comparison where no two enclose it.",
        "time over FLOPs saved": "The share of the dense time that was saved, over the share of "
        "the dense FLOPs that the decisions save: 1 means that all of the saving arrived as time.",
        "FLOPs": "Floating-point operations: the arithmetic that the decisions imply, which is not "
        "the time taken.",
        # The audit.
        "utility": "The loss with a unit skipped minus the loss with it run, all else unchanged, "
        "in nats: positive means that running it helps.",
        "price": "How many nats one FLOP is taken to be worth: 0, or the price implied by the "
        "budget.",
        "regret": "How much loss a decision cost compared with the better choice, at the stated "
        "price.",
        "downstream": "A decision that changed although it was not asked to, because its gate "
        "saw other hidden states.",
        "later margin": "After a flip, the smallest distance from its threshold of a gate that "
        "decides anew: where it is below what rounding moves a score by, rounding decides.",
        "AUROC": "The probability that a unit worth running scores higher than one that is not: "
        "0.5 is chance, 1 is perfect.",
        "calibration error": "The mean difference between predicted probabilities and observed "
        "frequencies.",
        # Attribution.
        "attribution": "How much each input contributed to one number, such as a loss or a gate "
        "score.",
        "share": "The part of a number that attribution assigns to one token, word or unit.",
        "convergence delta": "How far the shares miss the total that they should add up to; close "
        "to 0 is good.",
        "integrated gradients": "Attribution by adding up gradients along a straight path from a "
        "baseline to the input.",
        "exact flip": "One decision is reversed, all others stay as they are, and the loss is "
        "measured again.",
        # Layers.
        "logit lens": "The model's final norm and head applied to the hidden state after an "
        "earlier layer.",
        "Block Influence": "How much a layer changes the direction of the hidden state: 1 minus "
        "the cosine similarity of its input and output.",
        "probe": "A linear classifier trained to read a property of the token from a hidden state.",
        "control task": "The same probe trained on random labels, one per word; it shows what a "
        "probe memorises.",
        "selectivity": "A probe's accuracy minus its accuracy on the control task.",
        "log-odds": "The logarithm of odds p / (1 - p); a difference of 0.7 doubles the odds.",
        # Clusters.
        "cluster": "A group of tokens with similar depth profiles.",
        "silhouette": "How much closer tokens are to their own cluster than to the next, from -1 "
        "to 1; higher means clearer clusters.",
        "adjusted Rand index": "How well two groupings of the same tokens agree: 1 is identical, "
        "0 is chance.",
        # Statistics.
        "95% interval": "A range that would contain the true value in 95 of 100 repetitions.",
        "p-value": "How often a result at least this large would occur by chance alone.",
        "q-value": "A p-value corrected for many tests: the expected share of false findings among "
        "all that are at least as clear.",
        "Spearman": "A correlation of ranks, from -1 to 1; 0 means no monotonic relation.",
        "population stability index": "How much a distribution has changed: 0.1 is an early "
        "warning, 0.25 an alert.",
        "Kolmogorov-Smirnov distance": "The largest difference between two cumulative "
        "distributions, from 0 to 1.",
        # More of what is run and measured.
        # What is run.
        "family": "One way of skipping, such as learned gates or early exits: how its gates are "
        "found, read and forced.",
        "handle": "A loaded model with one setting of its thresholds; handles of one model share "
        "weights and nothing else.",
        "adapter": "The small low-rank module that replaces a skipped unit.",
        "translator": "The small module of an early exit that estimates the last hidden state from "
        "an earlier one.",
        "plan": "Decisions made by hand instead of by the gates, for all tokens and sites or for "
        "some.",
        "static policy": "The same units are skipped for every token.",
        "random policy": "Each unit runs at a fixed rate, drawn at random for each token.",
        "confidence rule": "An early exit is taken when the prediction there is certain enough.",
        # What is measured.
        "margin": "The gate score minus its threshold, with the sign turned so that positive "
        "always means running.",
        "execution rate": "The share of tokens for which a unit ran.",
        "asked and realised budget": "Asked is what thresholds were calibrated for; realised is "
        "what was spent on the text at hand.",
        "FLOP share": "The FLOPs of a run as a share of the dense model's, with keys, values and "
        "the output head counted too.",
        "KL divergence": "How far predictions are from the dense model's, or from those before a "
        "change, in nats per token; 0 "
        "means equal.",
        "top-1 agreement": "How often the most likely next token is the same as the dense model's.",
        "perplexity": "The exponential of the mean loss; as uncertain as a choice among that many "
        "equally likely tokens.",
        "held-out texts": "Texts that no model here was trained on.",
        # The audit.
        "audit": "Every decision of a text reversed, one at a time, to measure its utility.",
        "implied price": "The price of a FLOP at which a perfect gate would have spent the same "
        "budget.",
        "average precision": "The mean precision when units are ranked by gate score; chance is "
        "the share of units worth running.",
        "shuffled site by site": "A control: each site's decisions are given to other tokens at "
        "random, independently at each site, which also breaks up the combinations of sites that "
        "the gates chose.",
        "shuffled token by token": "A control: all decisions of a token together are given to "
        "another token at random, so that only the tokens change, not the combinations of sites.",
        "greedy utility": "A policy that knows every utility and keeps the best decisions within "
        "the budget.",
        # Layers.
        "convergence layer": "The layer from which on the most likely next token, read by the "
        "logit lens, no longer changes.",
        # Robustness.
        "decision shift": "The mean over sites of the difference between a word's shares of "
        "running tokens in two runs.",
        "drift": "A change of texts, or of decisions on them, between two corpora.",
        # Statistics.
        "bootstrap interval": "A 95% interval from computing the figure again on resampled "
        "documents or blocks of tokens; of fewer than 100 documents, Student's t interval is "
        "given.",
        "permutation p-value": "A p-value from repeating the computation on data shuffled so that "
        "no relation is left.",
        "block": "Neighbouring tokens resampled or shuffled together, because they are alike.",
        "covariates taken out": "The correlation that remains after position, word frequency, "
        "surprisal and length explained what they can.",
    }
)
"""A sentence for each term, in the order in which a reader meets them."""
