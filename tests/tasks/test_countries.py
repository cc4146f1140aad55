"""Names of countries, over the data sets' spellings."""

from __future__ import annotations

import pytest

from culnig_tl.tasks.countries import (
    COUNTRIES,
    OTHERS,
    SPECIFIC_COUNTRIES,
    closest,
    in_sentence,
    is_known,
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
    assert closest("Sout Korea") == "South Korea" and closest("Xyzzy") is None


def test_names_in_sentences():
    assert [in_sentence(name) for name in ("USA", "UK", "Spain", "West Java")] == [
        "the USA",
        "the UK",
        "Spain",
        "West Java",
    ]
