"""What a trace is made of: texts as they are, a conversation, or token ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from skipviz.errors import InputError
from skipviz.families.powers import traits_of
from skipviz.models import SkipModel
from skipviz.recording.build import whole_characters
from skipviz.text.documents import Document, as_documents
from skipviz.text.spans import TOKENIZING, Encoding, encode

Message = Mapping[str, str]


def encoded(
    model: SkipModel, texts: Any, *, bos: bool | None
) -> tuple[list[Document], list[Encoding]]:
    """Return what is to be run as documents and their tokens.

    Parameters
    ----------
    model
        For its tokenizer.
    texts
        A text, a document, or several; a conversation, as a list of messages with ``role`` and
        ``content``; or token ids.
    bos
        Whether each text begins with the begin-of-sequence token; None: as the tokenizer does. A
        conversation begins as the chat template says.

    Raises
    ------
    InputError
        If it is something else, or the tokenizer lacks what it needs.
    """
    if isinstance(texts, bytes):
        raise InputError("The text is bytes; decode it first, as with texts.decode('utf-8').")
    if _is_conversation(texts):
        return _of_ids(model, _conversation(model, texts), "conversation")
    ids = _token_ids(texts)
    if ids is not None:
        return _of_ids(model, ids, "token ids")
    documents = as_documents(texts)
    tokenizer = model.tokenizer
    if bos and tokenizer.bos_token_id is None:
        raise InputError(
            f"bos=True was asked of {model.name}, whose tokenizer has no begin-of-sequence token. "
            "Leave it out."
        )
    begin = adds_bos(tokenizer) if bos is None else bos
    rows = [_encoded_document(model, document, begin=begin) for document in documents]
    return [document for document, _ in rows], [encoding for _, encoding in rows]


def prompt_ids(model: SkipModel, prompt: Any) -> list[int]:
    """Return the tokens that a model is to go on from.

    Parameters
    ----------
    model
        For its tokenizer.
    prompt
        A text or a document; a conversation, to which an answer is opened as the chat template
        does; or token ids.

    Raises
    ------
    InputError
        If it is something else, or the tokenizer lacks what it needs.
    """
    messages = prompt.messages if isinstance(prompt, Document) and prompt.messages else prompt
    if _is_conversation(messages):
        return _conversation(model, messages, answer=True)
    encodings = encoded(model, prompt, bos=None)[1]
    if len(encodings) > 1:
        raise InputError(f"There are {len(encodings)} prompts; give one at a time.")
    return encodings[0].ids


def _encoded_document(
    model: SkipModel, document: Document, *, begin: bool
) -> tuple[Document, Encoding]:
    if document.messages:
        ids = _conversation(model, document.messages)
        (written,), (encoding,) = _of_ids(model, ids, document.source)
        return written, encoding
    whole = not traits_of(model.family, model.model).predicts
    encoding = encode(model.tokenizer, document.text, around=whole)
    adds = begin and not whole
    return document, _with_bos(model.tokenizer, encoding) if adds else encoding


def adds_bos(tokenizer: Any) -> bool:
    """Return whether a tokenizer puts a begin-of-sequence token before a text by itself."""
    begin = getattr(tokenizer, "bos_token_id", None)
    if begin is None:
        return False
    with TOKENIZING:
        ids: list[int] = tokenizer("a")["input_ids"]
    return ids[:1] == [begin]


def _with_bos(tokenizer: Any, encoding: Encoding) -> Encoding:
    """Put the token before a text; it has no characters of its own."""
    return replace(
        encoding,
        ids=[int(tokenizer.bos_token_id), *encoding.ids],
        char_start=np.concatenate([[0], encoding.char_start]),
        char_end=np.concatenate([[0], encoding.char_end]),
    )


def _is_conversation(texts: Any) -> bool:
    return (
        isinstance(texts, Sequence)
        and not isinstance(texts, str)
        and bool(texts)
        and all(isinstance(each, Mapping) for each in texts)
    )


def _conversation(
    model: SkipModel, messages: Sequence[Message], *, answer: bool = False
) -> list[int]:
    """Return a conversation as the chat template writes it, and opens an answer if one is to come.

    The names of control tokens are obeyed where the template has them. In a message they are text.
    """
    for number, message in enumerate(messages):
        if not all(isinstance(message.get(field), str) for field in ("role", "content")):
            raise InputError(
                f"Message {number} has the fields {', '.join(map(str, message))}; it needs role "
                "and content, both text."
            )
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"The tokenizer of {model.name} has no chat template, so it is not known how it writes "
            "messages. Give the conversation as a text."
        )
    said = "".join(message[field] for message in messages for field in ("role", "content"))
    typed = {chr(place): name for place, name in _stand_ins(tokenizer, said)}
    written = [{key: _replaced(value, typed) for key, value in each.items()} for each in messages]
    try:
        with TOKENIZING:
            made = tokenizer.apply_chat_template(
                written, tokenize=not typed, return_dict=False, add_generation_prompt=answer
            )
    except Exception as error:  # whatever a template makes of messages
        raise InputError(
            f"The chat template of {model.name} cannot write these messages ({error!s:.200}). Give "
            "roles in the order that it knows."
        ) from error
    if typed:
        made = _tokens_apart(tokenizer, made, typed)
    return [int(token) for token in made]


def _stand_ins(tokenizer: Any, said: str) -> Iterator[tuple[int, str]]:
    """Yield the names of control tokens in a text, the longest first, each with a free character.

    Those are of the private use area, which no text has but one that uses it itself.
    """
    known = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {token.content for token in known if token.special and token.content in said}
    free = (place for place in range(0xE000, 0xF900) if chr(place) not in said)
    return zip(free, sorted(names, key=len, reverse=True), strict=False)


def _replaced(value: Any, typed: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for stand_in, name in typed.items():
            value = value.replace(name, stand_in)
    return value


def _tokens_apart(tokenizer: Any, text: str, typed: Mapping[str, str]) -> list[int]:
    """Return a text's tokens, names of control tokens spelt out where a character stands in."""
    made: list[int] = []
    for part in re.split(f"([{''.join(typed)}])", text):
        given = typed.get(part, part)
        if given:
            made += tokenizer(given, add_special_tokens=False, split_special_tokens=part in typed)[
                "input_ids"
            ]
    return made


def _token_ids(texts: Any) -> list[int] | None:
    """Return token ids, if that is what was given."""
    if hasattr(texts, "tolist") and not isinstance(texts, str):
        values = np.asarray(texts.tolist())
        if values.ndim == 1 and values.dtype.kind in "UO":
            return None  # an array of texts, or of what is none
        if values.ndim == 2 and len(values) == 1:
            values = values[0]
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(
                f"Token ids have shape {values.shape} and type {values.dtype}; give whole numbers "
                "of one text, in one dimension."
            )
        return [int(token) for token in values]
    listed = isinstance(texts, Sequence) and not isinstance(texts, str) and bool(texts)
    if listed and all(isinstance(each, int) and not isinstance(each, bool) for each in texts):
        return list(texts)
    return None


def _of_ids(model: SkipModel, ids: list[int], source: str) -> tuple[list[Document], list[Encoding]]:
    rows = model.model.get_input_embeddings().num_embeddings
    wrong = [token for token in ids if not 0 <= token < rows]
    if wrong or not ids:
        raise InputError(
            f"Token id {wrong[0]} is not one of {model.name}'s {rows:,}, from 0."
            if wrong
            else "There are no token ids; give at least one."
        )
    numbers = np.array(ids, dtype=np.int64)
    texts, span = whole_characters(model.tokenizer, numbers, np.zeros_like(numbers))
    first = np.unique(span, return_index=True)[1]
    lengths = np.array([len(texts[place]) for place in first], dtype=np.int64)
    ends = np.cumsum(lengths)
    whole = "".join(texts[place] for place in first)
    encoding = Encoding(ids, (ends - lengths)[span], ends[span])
    return [Document(source=source, text=whole)], [encoding]
