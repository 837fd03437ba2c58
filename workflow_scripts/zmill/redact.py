"""Passwords and tokens in addresses: they come from the environment or `~/.netrc`, and are never written to a file or log.

An address in the configuration may name environment variables, `https://$NED_USER:$NED_PASSWORD@host/tap` or `?token=$TOKEN`;
one that contains a user, a password or a token itself is refused. `expand` inserts the values at the time of the request,
and `redact` then removes them from every text.
"""

from __future__ import annotations

import base64
import os
import re
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
SECRET = r"(?:[\w.-]*(?:token|secret|passw|pwd|credential|signature|auth|api[_-]?key|access[_-]?key)[\w.-]*|key|sig|user|username|login|pass)"
"""Names of the parameters of an address that identify a user."""
_USER = re.compile(r"(?<=://)[^/?#@\s'\"]+(?:/[^/?#@\s'\"]*)?@")
_PARAMETER = re.compile(rf"(?i)(?<=[?&;])({SECRET})=([^&;#\s'\"<>)]+)")
_values: set[str] = set()


def refuse_secrets(url: str) -> None:
    """Refuse an address that holds a user, a password or a token, or names a variable that is not set.

    Raises
    ------
    ValueError
        The message does not repeat the address.
    """
    parts = urlsplit(url)
    plain = not _only_variables(parts.netloc.rpartition("@")[0])
    named = [
        name
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if re.fullmatch(SECRET, name, re.IGNORECASE) and not _only_variables(value)
    ]
    if plain or named:
        what = f"the parameter {named[0]!r}" if named else "a user or password"
        raise ValueError(
            f"the address holds {what}, which would stand in logs, reports and releases: put it in ~/.netrc or in an environment "
            "variable, and write $NAME of the variable instead"
        )
    for found in VARIABLE.finditer(url):
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise ValueError(f"the address names the environment variable {name}, which is not set")


def expand(url: str) -> str:
    """An address with the values of its environment variables, which `redact` knows from now on."""

    def value(found: re.Match[str]) -> str:
        secret = os.environ[found[1] or found[2]]
        _remember(secret)
        return quote(secret, safe="")

    expanded = VARIABLE.sub(value, url)
    user = urlsplit(expanded)
    if expanded != url and user.password is not None:
        pair = unquote(f"{user.username}:{user.password}")  # as the header of the request has it
        _remember(base64.b64encode(pair.encode()).decode())
    return expanded


def redact(text: str) -> str:
    """A text without the passwords and tokens of addresses: those that `expand` inserted, and any that look like one."""
    for value in sorted(_values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _USER.sub(lambda found: found[0] if _only_variables(found[0][:-1]) else f"{HIDDEN}@", text)
    return _PARAMETER.sub(lambda found: found[0] if _only_variables(found[2]) else f"{found[1]}={HIDDEN}", text)


def _only_variables(text: str) -> bool:
    """Whether a user and password, or a token, consist of variables only."""
    return not VARIABLE.sub("", text).replace(":", "")


def _remember(secret: str) -> None:
    # A value of one or two characters would be replaced within words.
    if len(secret) > 2:
        _values.update({secret, quote(secret, safe=""), quote_plus(secret)})
