"""Names of countries, over the data sets' spellings."""

from __future__ import annotations

import pytest

from culnig_tl.tasks.countries import (
    COUNTRIES,
    OTHERS,
    SPECIFIC_COUNTRIES,
    in_sentence,
    is_known,
    known_names,
    nearest,
    unify,
)

# As the data sets write them.
BLEND = """US UK South_Korea Algeria Indonesia Spain Iran Mexico Assam Greece Ethiopia Northern_Nigeria
North_Korea West_Java China Azerbaijan""".split()
CULTURALBENCH = """Argentina, Australia, Bangladesh, Brazil, Canada, Chile, China, Czech Republic, Egypt,
France, Germany, Hong Kong, India, Indonesia, Iran, Israel, Italy, Japan, Lebanon, Malaysia, Mexico,
Morocco, Nepal, Netherlands, New Zealand, Nigeria, Pakistan, Peru, Philippines, Poland, Romania, Russia,
Saudi Arabia, Singapore, South Africa, South Korea, Spain, Taiwan, Thailand, Turkey, Ukraine, United
Kingdom, United States, Vietnam, Zimbabwe"""
NORMAD = """afghanistan argentina australia austria bangladesh bosnia_and_herzegovina brazil cambodia canada
chile china colombia croatia cyprus egypt ethiopia fiji france germany greece hong_kong hungary india
indonesia iran iraq ireland israel italy japan kenya laos lebanon malaysia malta mauritius mexico myanmar
nepal netherlands new_zealand north_macedonia pakistan palestinian_territories papua_new_guinea peru
philippines poland portugal romania russia samoa saudi_arabia serbia singapore somalia south_africa
south_korea south_sudan spain sri_lanka sudan sweden syria taiwan thailand timor-leste tonga türkiye ukraine
united_kingdom united_states_of_america venezuela vietnam zimbabwe"""


def test_blend_names_are_the_sixteen():
    assert tuple(unify(name) for name in BLEND) == COUNTRIES
    assert len(COUNTRIES) == 16 and set(SPECIFIC_COUNTRIES) < set(COUNTRIES) and len(SPECIFIC_COUNTRIES) == 8


@pytest.mark.parametrize(
    "names, count",
    [([name.strip() for name in CULTURALBENCH.replace("\n", " ").split(",")], 45), (NORMAD.split(), 75)],
    ids=["culturalbench", "normad"],
)
def test_other_data_sets_are_known(names, count):
    unified = [unify(name) for name in names]
    assert len(set(unified)) == count
    assert [name for name in unified if not is_known(name)] == []


def test_one_name_each():
    assert len({name.lower() for name in (*COUNTRIES, *OTHERS)}) == len(COUNTRIES) + len(OTHERS)
    assert {unify(n) for n in ("United States", "united_states_of_america", "US", "usa")} == {"USA"}
    assert {unify(n) for n in ("Great Britain", "United Kingdom", "UK")} == {"UK"}
    for name in (*COUNTRIES, *OTHERS):
        assert unify(name) == name and is_known(name)


def test_unknown_names_come_back_with_a_suggestion():
    assert unify("Sout_Korea") == "Sout Korea" and not is_known("Sout Korea")
    assert nearest("Sout Korea") == ("South Korea",) and nearest("Xyzzy") == ()


@pytest.mark.parametrize(
    "name, country",
    [
        ("Republic of Korea", "South Korea"),
        ("Korea, Republic of", "South Korea"),
        ("Democratic People's Republic of Korea", "North Korea"),
        ("Cote d'Ivoire", "Ivory Coast"),
        ("Côte d’Ivoire", "Ivory Coast"),
        ("Holland", "Netherlands"),
        ("U.K.", "UK"),
        ("U.S.A.", "USA"),
        ("GB", "UK"),
        ("DEU", "Germany"),
        ("kr", "South Korea"),
        ("The Gambia", "Gambia"),
        ("Iran (Islamic Republic of)", "Iran"),
        ("Viet Nam", "Vietnam"),
        ("Türkiye", "Turkey"),
        ("TURKEY", "Turkey"),
        ("Palestine", "Palestinian Territories"),
        ("Lao People's Democratic Republic", "Laos"),
        ("Congo, The Democratic Republic of the", "Democratic Republic of the Congo"),
        ("People's Republic of China", "China"),
        ("Cabo Verde", "Cape Verde"),
        ("São Tomé and Príncipe", "Sao Tome and Principe"),
        ("Bermuda", "Bermuda"),
    ],
)
def test_codes_and_official_and_common_names(name, country):
    assert unify(name) == country and is_known(country)


def test_every_code_of_iso_3166_is_a_country_of_its_own():
    """All but Namibia's and Norway's in small letters, which rather say "not available" and "no"."""
    import pycountry

    codes = [code for c in pycountry.countries for code in (c.alpha_2, c.alpha_3) if code != "NA"]
    assert len({unify(code) for code in codes}) == len(list(pycountry.countries)) == 249
    assert unify("NA") == "NA" and not is_known("NA") and nearest("NA") == ("Namibia",)


@pytest.mark.parametrize(
    "name, near",
    [
        ("England", ("UK",)),
        ("Bayern", ("Germany",)),
        ("Germny", ("Germany",)),
        ("Phillipines", ("Philippines",)),
        ("Nigera", ("Nigeria", "Niger")),
        ("Nordic countries", ()),
    ],
)
def test_what_comes_nearest(name, near):
    assert not is_known(unify(name)) and nearest(unify(name)) == near


def test_the_packages_own_names_are_among_those_known():
    assert {*COUNTRIES, *OTHERS} <= set(known_names()) and "United States" not in known_names()


def test_names_in_sentences():
    assert [in_sentence(name) for name in ("USA", "UK", "Spain", "West Java")] == [
        "the USA",
        "the UK",
        "Spain",
        "West Java",
    ]
