"""Further columns of a survey that models take as inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import BaseModel

from zmill.config import ConfigError, nearest


def check_extra(settings: BaseModel, known: Sequence[str], model: str, texts: Collection[str] = ()) -> tuple[str, ...]:
    """Refuse an input column that the survey does not have, or that holds text.

    Parameters
    ----------
    settings : settings of a model, with `extra` where its type takes further inputs.
    known : the survey's `columns.extra`; `texts` : those of them that hold text in the files.

    Returns
    -------
    The columns of `columns.extra` that the model takes, that is all further inputs except `ebv`.

    Raises
    ------
    ConfigError
        With the name of the column and the columns that exist.
    """
    wanted = tuple(name for name in getattr(settings, "extra", ()) if name != "ebv")
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"config.yaml: models: {model}: extra: {name!r} is no input there is{nearest(name, ['ebv', *known])}; "
                f"name `ebv` or one of the survey's columns.extra: {', '.join(known) or 'none'}"
            )
        if name in texts:
            raise ConfigError(
                f"config.yaml: models.{model}.extra: {name!r} is text in the survey's files; inputs of models are numbers: leave "
                "it out, or write it as a number into the files"
            )
    return wanted
