"""Blanking secrets in texts that are kept: keys, tokens, values of fields that are named like secrets.

What belongs here: telling what must not be kept. What does not: what is kept (audit.py).
"""

import re

from turnover_assets.core.api_keys import KEY_LIKE

# Each looks at a place of the text a bounded number of times, so that no text takes long.
TOKEN_LIKE = re.compile(r"(?<![\w-])eyJ[\w-]+(?:\.[\w-]*){1,4}")
SECRET_FIELD = re.compile(
    r"((?:^|[&?;])[^=&;]{0,40}(?:key|token|secret|passw|csrf)[^=&;]{0,40}=)[^&;]*", re.IGNORECASE
)
SECRET_MEMBER = re.compile(
    r'("[^"]{0,40}(?:api.?key|token|secret|passw)[^"]{0,40}"\s{0,9}:\s{0,9})"(?:[^"\\]|\\.)*"?',
    re.IGNORECASE,
)
SIGNS = re.compile("ta_|eyj|key|token|secret|passw|csrf", re.IGNORECASE)  # one is in whatever is blanked
BLANK = "[blanked]"


def blanked(text: str) -> str:
    """A text without what looks like a key, a token, or the value of a field that holds a secret."""
    if not SIGNS.search(text):
        return text
    text = TOKEN_LIKE.sub(BLANK, KEY_LIKE.sub(BLANK, text))
    return SECRET_MEMBER.sub(rf'\1"{BLANK}"', SECRET_FIELD.sub(rf"\1{BLANK}", text))
