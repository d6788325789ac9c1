"""What was probably meant by a word in a panel file that is none of those allowed.

What belongs here: guesses at names, and the fields that a place of a panel file can have. What does not: what
is right or wrong (panel.py, panel_rules.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel


def meant(word: str, known: Iterable[str]) -> str:
    """A guess as the end of a sentence; empty where nothing known is like the word.

    Example:
        >>> meant("horizont", ["name", "horizon"])
        "; did you mean 'horizon'?"
        >>> meant("colour", ["name", "horizon"])
        ''
    """
    found = get_close_matches(word.lower(), [*known], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def unknown_field(model: type[BaseModel], place: Sequence[int | str]) -> str:
    """What is wrong with a field that a model does not have, and what was probably meant.

    Args:
        model: The model of the whole file.
        place: The way to the field, as pydantic gives it, the field's own name last.
    """
    fields = [*_model_at(model, place[:-1]).model_fields]
    guess = meant(str(place[-1]), fields)
    return f"is not a field here{guess}" if guess else f"is not a field here (known: {', '.join(fields)})"


def _model_at(model: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """The model inside a model to which a way leads; its numbers only tell items of a list apart."""
    for step in place:
        if isinstance(step, str) and step in model.model_fields:
            model = next(_models_in(model.model_fields[step].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
