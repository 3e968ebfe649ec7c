"""What is looked for in files that leave a domain."""

import re


def words(raw: bytes) -> set[str]:
    """Every run of letters, digits, - and _ in some bytes: a user's id would be one of them, quoted or not."""
    return {word.decode() for word in re.findall(rb"[0-9A-Za-z_-]+", raw)}
