"""The names of countries and regions, the same for all data sets."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

COUNTRIES: tuple[str, ...] = (
    "USA", "UK", "South Korea", "Algeria", "Indonesia", "Spain", "Iran", "Mexico",
    "Assam", "Greece", "Ethiopia", "Nigeria", "North Korea", "West Java", "China", "Azerbaijan",
)  # fmt: skip
"""The 16 countries and regions of BLEnD (Myung et al. 2024), in its order."""

SPECIFIC_COUNTRIES: tuple[str, ...] = (
    "China", "Indonesia", "Iran", "Mexico", "South Korea", "Spain", "UK", "USA",
)  # fmt: skip
"""The eight for which CULNIG (arXiv 2510.08284) reports culture-specific neurons."""

OTHERS: tuple[str, ...] = (
    "Afghanistan", "Albania", "Andorra", "Angola", "Antigua and Barbuda", "Argentina", "Armenia", "Australia",
    "Austria", "Bahamas", "Bahrain", "Bangladesh", "Barbados", "Belarus", "Belgium", "Belize", "Benin",
    "Bhutan", "Bolivia", "Bosnia and Herzegovina", "Botswana", "Brazil", "Brunei", "Bulgaria", "Burkina Faso",
    "Burundi", "Cambodia", "Cameroon", "Canada", "Cape Verde", "Central African Republic", "Chad", "Chile",
    "Colombia", "Comoros", "Congo", "Costa Rica", "Croatia", "Cuba", "Cyprus", "Czech Republic",
    "Democratic Republic of the Congo", "Denmark", "Djibouti", "Dominica", "Dominican Republic", "Ecuador",
    "Egypt", "El Salvador", "Equatorial Guinea", "Eritrea", "Estonia", "Eswatini", "Fiji", "Finland",
    "France", "Gabon", "Gambia", "Georgia", "Germany", "Ghana", "Greenland", "Grenada", "Guatemala", "Guinea",
    "Guinea-Bissau", "Guyana", "Haiti", "Honduras", "Hong Kong", "Hungary", "Iceland", "India", "Iraq",
    "Ireland", "Israel", "Italy", "Ivory Coast", "Jamaica", "Japan", "Jordan", "Kazakhstan", "Kenya",
    "Kiribati", "Kosovo", "Kuwait", "Kyrgyzstan", "Laos", "Latvia", "Lebanon", "Lesotho", "Liberia", "Libya",
    "Liechtenstein", "Lithuania", "Luxembourg", "Macao", "Madagascar", "Malawi", "Malaysia", "Maldives",
    "Mali", "Malta", "Marshall Islands", "Mauritania", "Mauritius", "Micronesia", "Moldova", "Monaco",
    "Mongolia", "Montenegro", "Morocco", "Mozambique", "Myanmar", "Namibia", "Nauru", "Nepal", "Netherlands",
    "New Zealand", "Nicaragua", "Niger", "North Macedonia", "Northern Ireland", "Norway", "Oman", "Pakistan",
    "Palau", "Palestinian Territories", "Panama", "Papua New Guinea", "Paraguay", "Peru", "Philippines",
    "Poland", "Portugal", "Puerto Rico", "Qatar", "Romania", "Russia", "Rwanda", "Saint Kitts and Nevis",
    "Saint Lucia", "Saint Vincent and the Grenadines", "Samoa", "San Marino", "Sao Tome and Principe",
    "Saudi Arabia", "Senegal", "Serbia", "Seychelles", "Sierra Leone", "Singapore", "Slovakia", "Slovenia",
    "Solomon Islands", "Somalia", "South Africa", "South Sudan", "Sri Lanka", "Sudan", "Suriname", "Sweden",
    "Switzerland", "Syria", "Taiwan", "Tajikistan", "Tanzania", "Thailand", "Timor-Leste", "Togo", "Tonga",
    "Trinidad and Tobago", "Tunisia", "Turkey", "Turkmenistan", "Tuvalu", "Uganda", "Ukraine",
    "United Arab Emirates", "Uruguay", "Uzbekistan", "Vanuatu", "Vatican City", "Venezuela", "Vietnam",
    "Yemen", "Zambia", "Zimbabwe",
)  # fmt: skip
"""Further countries and territories that data sets ask about."""
_OWN = {name: name for name in (*COUNTRIES, *OTHERS)}

_ALIASES = {
    "us": "USA",
    "america": "USA",
    "uk": "UK",
    "great britain": "UK",
    "britain": "UK",
    "korea": "South Korea",
    "korea south": "South Korea",
    "korea north": "North Korea",
    "northern nigeria": "Nigeria",
    "hong kong sar": "Hong Kong",
    "macao sar": "Macao",
    "macau": "Macao",
    "taiwan roc": "Taiwan",
    "bosnia": "Bosnia and Herzegovina",
    "bosnia herzegovina": "Bosnia and Herzegovina",
    "burma": "Myanmar",
    "east timor": "Timor-Leste",
    "uae": "United Arab Emirates",
    "holland": "Netherlands",
    "cote divoire": "Ivory Coast",
    "congo brazzaville": "Congo",
    "congo kinshasa": "Democratic Republic of the Congo",
    "dr congo": "Democratic Republic of the Congo",
    "drc": "Democratic Republic of the Congo",
    "swaziland": "Eswatini",
    "macedonia": "North Macedonia",
    "persia": "Iran",
    "ceylon": "Sri Lanka",
    "vatican": "Vatican City",
    "palestine": "Palestinian Territories",
    "lao pdr": "Laos",
    "prc": "China",
    "mainland china": "China",
    "republic of ireland": "Ireland",
    "eire": "Ireland",
}
"""Names that are in common use and that ISO 3166 does not list; in the plain form of `_plain`."""
_CODES = {
    "USA": "US", "UK": "GB", "Brunei": "BN", "Cape Verde": "CV", "Democratic Republic of the Congo": "CD",
    "Ivory Coast": "CI", "Micronesia": "FM", "Palestinian Territories": "PS", "Russia": "RU", "Turkey": "TR",
    "Vatican City": "VA",
}  # fmt: skip
"""This package's name -> ISO 3166 code, where the standard knows the country by other names."""
_PARTS = {"England": "UK", "Scotland": "UK", "Wales": "UK"}
"""Parts of countries that are often taken for countries."""
_NO_CODES = {"NA": "Namibia", "na": "Namibia", "no": "Norway"}
"""Codes of countries that rather say that there is none."""


def unify(name: str) -> str:
    """This package's name for a data set's country: ``united_states_of_america`` -> ``USA``.

    Names of the standard ISO 3166 (short, official and common ones, and codes of two and three letters),
    through `pycountry`, and those of `COUNTRIES` and `OTHERS`, whatever their case, accents and punctuation:
    ``Republic of Korea``, ``Cote d'Ivoire``, ``U.K.``, ``DEU``. A name that is none of these is returned
    with spaces for underscores.
    """
    text = " ".join(name.replace("_", " ").split())
    if text in _NO_CODES:
        return text
    return _OWN.get(text) or _names().get(_plain(text), text)


def is_known(name: str) -> bool:
    """Whether a unified name is one of `known_names`."""
    return name in _OWN or (name not in _NO_CODES and _names().get(_plain(name)) == name)


def known_names() -> list[str]:
    """Every country and territory that `unify` returns, sorted."""
    return sorted(set(_names().values()))


def nearest(name: str) -> tuple[str, ...]:
    """Known names that are most like `name`, or of which it is a part; at most three, often none."""
    import difflib

    if (whole := _NO_CODES.get(name) or _whole(name)) is not None:
        return (whole,)
    plain = _plain(name)
    short = {_plain(known): known for known in known_names()} | _ALIASES
    # A typing error seldom hits the first letter: "England" is not "Greenland".
    alike = [known for known in short if len(known) > 3 and known[:1] == plain[:1]]
    near = difflib.get_close_matches(plain, alike, n=3, cutoff=0.75)
    return tuple(dict.fromkeys(short[known] for known in near))


def _whole(name: str) -> str | None:
    """The country of which `name` is a part (ISO 3166-2); None where it is none, or of several countries."""
    import pycountry

    plain = _plain(name)
    parts: dict[str, set[str]] = {}
    for part in pycountry.subdivisions:
        parts.setdefault(_plain(part.name), set()).add(_names()[part.country_code.lower()])
    parts |= {_plain(part): {whole} for part, whole in _PARTS.items()}
    found = parts.get(plain, set())
    return next(iter(found)) if len(found) == 1 else None


def _plain(name: str) -> str:
    """A name in lower case, without accents, punctuation and articles."""
    signs = unicodedata.normalize("NFKD", name.casefold().replace("ı", "i").replace("&", " and "))
    letters = "".join(sign for sign in signs if not unicodedata.combining(sign))
    letters = re.sub(r"[.'’`]", "", letters)
    words = re.findall(r"[^\W_]+", letters)
    return " ".join(word for word in words if word != "the")


@cache
def _names() -> dict[str, str]:
    """Plain form of every name and code -> this package's name."""
    import pycountry

    own = {_plain(name): name for name in _OWN}
    codes = {code: name for name, code in _CODES.items()}
    names: dict[str, str] = {}
    for country in pycountry.countries:
        said = [country.name, *(getattr(country, kind, None) for kind in ("common_name", "official_name"))]
        said = [text for text in said if text]
        said += [_turned(text) for text in said]
        mine = codes.get(country.alpha_2) or next((own[p] for p in map(_plain, said) if p in own), None)
        mine = mine or _turned(getattr(country, "common_name", country.name))
        for text in (*said, country.alpha_2, country.alpha_3):
            names.setdefault(_plain(text), mine)
    return names | _ALIASES | own


def _turned(name: str) -> str:
    """ "Korea, Republic of" as "Republic of Korea"; any other name as it is."""
    start, comma, end = name.partition(", ")
    return f"{end} {start}" if comma and end.split()[-1] in ("of", "the", "The") else name


def in_sentence(country: str) -> str:
    """The name as it stands in a sentence: ``the USA``, ``Spain``."""
    return f"the {country}" if country in _WITH_ARTICLE else country


_WITH_ARTICLE = frozenset({
    "USA", "UK", "Netherlands", "Philippines", "Bahamas", "Gambia", "Maldives", "Seychelles",
    "Czech Republic", "Comoros", "Dominican Republic", "Central African Republic",
    "Democratic Republic of the Congo", "United Arab Emirates", "Marshall Islands", "Solomon Islands",
    "Palestinian Territories", "Ivory Coast",
})  # fmt: skip
