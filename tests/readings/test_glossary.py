from skipviz.readings.glossary import GLOSSARY


def test_each_term_has_one_sentence():
    for term, meaning in GLOSSARY.items():
        assert meaning[0].isupper(), term
        assert meaning.endswith("."), term
        assert ". " not in meaning, f"{term}: more than one sentence"
        assert len(meaning) < 220, term
