"""The names of countries and regions, the same for all data sets."""

from __future__ import annotations

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

_ALIASES = {
    "us": "USA",
    "united states": "USA",
    "united states of america": "USA",
    "america": "USA",
    "united kingdom": "UK",
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
    "türkiye": "Turkey",
    "czechia": "Czech Republic",
    "russian federation": "Russia",
    "viet nam": "Vietnam",
    "bosnia herzegovina": "Bosnia and Herzegovina",
    "palestine": "Palestinian Territories",
    "burma": "Myanmar",
    "timor leste": "Timor-Leste",
    "east timor": "Timor-Leste",
    "uae": "United Arab Emirates",
    "the netherlands": "Netherlands",
    "the philippines": "Philippines",
}
_NAMES = {name.lower(): name for name in (*COUNTRIES, *OTHERS)} | _ALIASES


def unify(name: str) -> str:
    """This package's name for a data set's country: ``united_states_of_america`` -> ``USA``.

    A name that the package does not know is returned with spaces for underscores.
    """
    plain = " ".join(name.replace("_", " ").split())
    return _NAMES.get(plain.lower(), plain)


def is_known(name: str) -> bool:
    """Whether a unified name is one of `COUNTRIES` or `OTHERS`."""
    return _NAMES.get(name.lower()) == name


def closest(name: str) -> str | None:
    """The known name most like `name`, if one is close."""
    import difflib

    near = difflib.get_close_matches(name.lower(), _NAMES, n=1, cutoff=0.75)
    return _NAMES[near[0]] if near else None


def in_sentence(country: str) -> str:
    """The name as it stands in a sentence: ``the USA``, ``Spain``."""
    return f"the {country}" if country in _WITH_ARTICLE else country


_WITH_ARTICLE = frozenset({
    "USA", "UK", "Netherlands", "Philippines", "Bahamas", "Gambia", "Maldives", "Seychelles",
    "Czech Republic", "Comoros", "Dominican Republic", "Central African Republic",
    "Democratic Republic of the Congo", "United Arab Emirates", "Marshall Islands", "Solomon Islands",
    "Palestinian Territories", "Ivory Coast",
})  # fmt: skip
