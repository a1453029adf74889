"""Personal data by pattern, each checked as far as its form can be: nothing is looked up.

What the prompt holds too is not new and is let pass, and so is what is set aside for examples: example.com, private and
documentation addresses, telephone numbers 555-01xx. Patterns find no names, no streets and no numbers in words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from cai.data.filters.findings import Finding, Reply, Rule
from cai.data.filters.settings import FilterRules

MOST_LOOKED_AT = 200
"""Of one reply, whether they stand in its prompt too."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?<![\w.%+-])[\w%+-](?:[\w.%+-]{{0,62}}[\w%+-])?@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])")
_IP4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]\d)")
_IP6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,11}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4})(?![\w-])"
)
_SSN = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_DNI = re.compile(r"\b(?:\d{8}|[XYZ]\d{7})-?[A-HJ-NP-TV-Z]\b")
_NIR = re.compile(r"(?<!\d)[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}(?!\d)")
_NINO = re.compile(r"\b(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b")
_EXAMPLE_DOMAINS = re.compile(
    r"(?:\A|\.)(?:example\.(?:com|org|net|edu)|(?:your)?(?:company|domain|email)\.com|example|test|invalid|localhost|local)\Z"
)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24,
    "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "TR": 26, "UA": 29,
}  # fmt: skip


def is_iban(text: str) -> bool:
    """Whether an account number has its country's length and its checksum (ISO 13616: the number mod 97 is 1)."""
    bare = text.replace(" ", "")
    if _IBAN_LENGTHS.get(bare[:2]) != len(bare) or not bare.isascii() or not bare.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether the digits are those of a payment card: a known first digit and length, and Luhn's sum (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdecimal()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (3, 4, 5, 6) or len(set(digits)) < 2:
        return False
    doubled = [d if n % 2 == 0 else 2 * d - 9 * (d > 4) for n, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global
    # "1.2.3.4" is far more often a version or a section than somebody's machine.
    return address.is_global and sum(len(part) > 1 for part in text.split(".")) >= 2


def _is_telephone(text: str) -> bool:
    digits = "".join(c for c in text if c.isdecimal())
    if text.startswith("+"):
        return 8 <= len(digits) <= 15 and not digits.startswith("0") and len(set(digits)) > 2 and not _is_made_up(digits)
    area, exchange = digits[-10:-7], digits[-7:-4]
    return area[0] in "23456789" and exchange[0] in "23456789" and len(set(digits)) > 2 and not _is_made_up(digits)


def _is_made_up(digits: str) -> bool:
    return digits[-7:-2] == "55501" or digits[-10:] in ("1234567890", "5555555555") or "123456789" in digits


def _is_spanish_id(text: str) -> bool:
    """DNI or NIE: the letter is the number mod 23."""
    bare = text.replace("-", "")
    number = int(bare[:-1].translate(str.maketrans("XYZ", "012")))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == bare[-1]


def _is_french_id(text: str) -> bool:
    """NIR: the last two digits are 97 less the number mod 97."""
    bare = text.replace(" ", "").replace("2A", "19").replace("2B", "18")
    return len(bare) == 15 and 97 - int(bare[:13]) % 97 == int(bare[13:])


def _is_own_address(text: str) -> bool:
    return _EXAMPLE_DOMAINS.search(text.rpartition("@")[2].lower()) is None


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    sign: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]


_KINDS = (
    _Kind("an e-mail address", "@", _EMAIL, _is_own_address),
    _Kind("an IBAN", "", _IBAN, is_iban),
    _Kind("a card number", "", _CARD, is_card),
    _Kind("an IP address", ".", _IP4, _is_address),
    _Kind("an IP address", ":", _IP6, _is_address),
    _Kind("a French social security number", "", _NIR, _is_french_id),
    _Kind("a US social security number", "-", _SSN, lambda _: True),
    _Kind("a telephone number", "", _PHONE, _is_telephone),
    _Kind("a Spanish identity number", "", _DNI, _is_spanish_id),
    _Kind("a UK National Insurance number", "", _NINO, lambda _: True),
)
"""In this order; each with a sign that has to be in the text ("" for a digit), so that most texts are looked at once."""


def personal_data(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Kind and place of everything in a text that has the form of personal data."""
    digits = any(c.isdecimal() for c in text)
    for kind in _KINDS:
        if (digits and not kind.sign) or (kind.sign and kind.sign in text):
            for found in kind.pattern.finditer(text):
                if kind.is_valid(found.group()):
                    yield kind.name, found.span()


def _pii(reply: Reply, _: FilterRules) -> Finding | None:
    asked: str | None = None
    for name, (start, end) in islice(personal_data(reply.text), MOST_LOOKED_AT):
        if asked is None:
            asked = _bare("\n".join(message.content for message in reply.prompt))
        if _bare(reply.text[start:end]) not in asked:
            return Finding("pii", name, (start, end))
    return None


def _bare(text: str) -> str:
    return re.sub(r"[\s().-]", "", text).lower()


PII = Rule("pii", "Personal data, by pattern and checksum, that the prompt does not hold.", look=_pii)
