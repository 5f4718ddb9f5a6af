"""Tiny random encoders that a text leaves early, as reference code has them.

Written from what the code does: names of modules, shapes, rules and polarities. Each keeps in
``truth`` how many layers the last text ran, which the code counts itself, beside any hook.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertPooler

from tests import tiny

LAYERS = 5
CLASSES = 3


def _states(made: Any) -> Tensor:
    states: Tensor = made if isinstance(made, Tensor) else made[0]
    return states


class HighwayException(Exception):
    """Carries what an exit found out of the encoder; layers count from 1."""

    def __init__(self, message: Any, exit_layer: int) -> None:
        self.message, self.exit_layer = message, exit_layer


class _Highway(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.pooler = BertPooler(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, encoder_outputs: Any) -> Any:
        pooled = self.pooler(encoder_outputs[0])
        return self.classifier(self.dropout(pooled)), pooled


def _entropy(logits: Tensor) -> Tensor:
    x = torch.softmax(logits, dim=-1)
    return -torch.sum(x * torch.log(x), dim=-1)


class _HighwayEncoder(nn.Module):
    def __init__(self, config: Any, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layer = layers
        self.highway = nn.ModuleList(_Highway(config) for _ in layers)
        self.early_exit_entropy = [-1.0 for _ in layers]

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        for number, layer in enumerate(self.layer):
            states = _states(layer(states, mask))
            exit_ = self.highway[number]((states,))
            if _entropy(exit_[0]) < self.early_exit_entropy[number]:
                raise HighwayException((exit_[0],), number + 1)
        return states


class _HighwayBert(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        stock = BertModel(config)
        self.embeddings, self.pooler = stock.embeddings, stock.pooler
        self.encoder = _HighwayEncoder(config, stock.encoder.layer)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        states = self.encoder(self.embeddings(input_ids=input_ids), _extended(attention_mask))
        return states, self.pooler(states)


def _extended(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else (1.0 - mask[:, None, None, :].float()) * -10000.0


class HighwayBertForSequenceClassification(BertPreTrainedModel):  # type: ignore[misc]
    """DeeBERT; it returns logits, and the layer that a text left behind."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = _HighwayBert(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.truth = 0
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        self.truth = len(self.bert.encoder.layer)
        try:
            outputs = self.bert(input_ids, attention_mask=attention_mask)
            logits = self.classifier(self.dropout(outputs[1]))
        except HighwayException as left:
            (logits,), self.truth = left.message, left.exit_layer
        return logits, self.truth


class _PatientBert(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        stock = BertModel(config)
        self.embeddings, self.encoder, self.pooler = stock.embeddings, stock.encoder, stock.pooler
        self.patience, self.regression_threshold, self.truth = 0, 0.0, 0

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, classifiers: Any, regression: bool
    ) -> Tensor:
        mask, states = _extended(attention_mask), self.embeddings(input_ids=input_ids)
        if self.patience == 0:
            for layer in self.encoder.layer:
                states = _states(layer(states, mask))
            self.truth = len(self.encoder.layer)
            whole: Tensor = classifiers[-1](self.pooler(states))
            return whole
        counter, before = 0, None
        self.truth = 0
        for number, layer in enumerate(self.encoder.layer):
            self.truth += 1
            states = _states(layer(states, mask))
            logits: Tensor = classifiers[number](self.pooler(states))
            if before is None:
                same = False
            elif regression:
                same = bool((before - logits).abs() < self.regression_threshold)
            else:
                same = bool(torch.all(logits.argmax(dim=1).eq(before.argmax(dim=1))))
            counter = counter + 1 if same else 0
            before = logits
            if counter == self.patience:
                break
        return logits


class BertForSequenceClassificationWithPabee(BertPreTrainedModel):  # type: ignore[misc]
    """PABEE; it returns logits."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = _PatientBert(config)
        self.classifiers = nn.ModuleList(
            nn.Linear(config.hidden_size, config.num_labels) for _ in range(LAYERS)
        )
        self.post_init()

    @property
    def truth(self) -> int:
        return self.bert.truth

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        regression = self.config.num_labels == 1
        return (self.bert(input_ids, attention_mask, self.classifiers, regression),)


def _config(classes: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(tiny.tokenizer()), hidden_size=32, intermediate_size=64,
        num_hidden_layers=LAYERS, num_attention_heads=4, max_position_embeddings=256,
        initializer_range=0.3, num_labels=classes,
    )  # fmt: skip


def deebert(*, entropy: float = 0.8) -> Any:
    """An encoder with exits behind every layer."""
    torch.manual_seed(0)
    model = HighwayBertForSequenceClassification(_config(CLASSES)).eval()
    model.bert.encoder.early_exit_entropy = [entropy] * LAYERS
    return model


def pabee(*, patience: int = 1, classes: int = CLASSES) -> Any:
    """An encoder with a classifier behind every layer."""
    torch.manual_seed(0)
    model = BertForSequenceClassificationWithPabee(_config(classes)).eval()
    model.bert.patience, model.bert.regression_threshold = patience, 0.5
    return model
