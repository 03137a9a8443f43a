"""The one place where text becomes token ids, for training and every engine alike.

A template and a BOS are applied once and the same way everywhere, because a doubled BOS or a
second formatting path silently inverts results (architecture: contracts).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jinja2

from immunobench.domains import Example
from immunobench.errors import ImmunobenchError

Format = Literal["chat", "plain"]


@dataclass(frozen=True)
class PromptEdit:
    """How an attack changes the prompt. The default changes nothing."""

    format: Format = "chat"
    """'chat' renders the template; 'plain' leaves it out, as a base model would be asked."""
    system: str | None = None
    """A system message, where an attack sets one."""
    context: tuple[tuple[str, str], ...] = ()
    """Earlier turns (user, assistant) put before the request."""
    prefix: str = ""
    """Text before the request."""
    suffix: str = ""
    """Text after the request."""
    prefill: str = ""
    """The start of the answer, put into the assistant's mouth."""
    virtual: Callable[[str], Sequence[int]] | None = None
    """Ids past the vocabulary, by request, put right after the BOS: the virtual tokens of a soft prompt."""


@dataclass(frozen=True)
class Rendered:
    """Token ids of a prompt and of the response that follows it."""

    prompt: list[int]
    response: list[int]


class Renderer:
    """Renders prompts and training texts with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id
        self.adds_bos: bool = self.bos is not None and list(tokenizer.encode("a"))[:1] == [self.bos]
        self.has_template: bool = bool(getattr(tokenizer, "chat_template", None))

    @property
    def template_sha256(self) -> str:
        """Hash of the chat template's text."""
        return hashlib.sha256((self.tokenizer.chat_template or "").encode()).hexdigest()

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text`` and nothing else."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def plain(self, text: str) -> list[int]:
        """Token ids of plain text, with one BOS before it where the tokenizer puts one."""
        return self.with_one_bos(self.ids(text))

    def prompt(self, request: str, edit: PromptEdit = PromptEdit()) -> list[int]:
        """Token ids of a request up to where the answer begins, as ``edit`` changes it.

        Raises ImmunobenchError where the chat format is asked of a tokenizer without a template, or the template
        refuses the messages, as some do a system message.
        """
        text = f"{edit.prefix}{request}{edit.suffix}"
        if edit.format == "plain":
            shots = "".join(f"{user}\n{assistant}\n\n" for user, assistant in edit.context)
            ids = self.plain(f"{shots}{text}\n{edit.prefill}")
        else:
            ids = self.with_one_bos(self.ids(self.chat_text(text, edit) + edit.prefill))
        if edit.virtual is None:
            return ids
        start = int(ids[:1] == [self.bos])
        return [*ids[:start], *edit.virtual(request), *ids[start:]]

    def example(self, example: Example, edit: PromptEdit = PromptEdit()) -> Rendered:
        """A training text: the response ends with the end-of-turn token that stops generation."""
        end = self._end_of_turn()
        if example.prompt is None:
            return Rendered(self.plain(""), self.ids(example.response) + end)
        return Rendered(self.prompt(example.prompt, edit), self.ids(example.response) + end)

    def chat_text(self, request: str, edit: PromptEdit = PromptEdit()) -> str:
        """The chat template's text for a request and the turns before it, up to where the answer begins.

        Raises ImmunobenchError as :meth:`prompt` does.
        """
        if not self.has_template:
            raise ImmunobenchError("the model has no chat template: add chat_template to its tokenizer.")
        messages = [{"role": "system", "content": edit.system}] if edit.system is not None else []
        for user, assistant in edit.context:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        messages.append({"role": "user", "content": request})
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except jinja2.TemplateError as error:
            raise ImmunobenchError(f"the model's chat template refuses the messages: {error}.") from error

    def with_one_bos(self, ids: list[int]) -> list[int]:
        """Templates differ in whether they print the BOS: never two, and one where the tokenizer puts one."""
        while ids[:2] == [self.bos, self.bos]:
            ids = ids[1:]
        if self.bos is None or not self.adds_bos or ids[:1] == [self.bos]:
            return ids
        return [self.bos, *ids]

    def _end_of_turn(self) -> list[int]:
        end = self.tokenizer.eos_token_id
        return [] if end is None else [end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
