#!/usr/bin/env python3
"""Writes tests/fixtures/eval/sacrebleu.json: what sacrebleu 2.5.1 gives for the rows below, each alone and all together.

    pip install sacrebleu==2.5.1 && tests/python/sacrebleu_cases.py
"""
import json
import pathlib

import sacrebleu

ROWS = [
    ("The ferry leaves the north pier at half past eight.", "The ferry leaves the north pier at half past eight."),
    ("The ferry leaves the north pier at half past eight.", "A ferry departs from the north pier at 8:30."),
    ("Water boils at 100 degrees.", "At sea level, water boils at 100 degrees Celsius, or 212 degrees Fahrenheit."),
    ("Mix 1.5 cups of flour with 2,000 ml of milk, then wait.", "Mix 1,5 cups of flour with 2.000 ml of milk then wait"),
    ("Yes", "Yes."), ("Yes.", "No."), ("", "Something was said."), ("Something was expected.", ""), ("", ""),
    ("one", "one"), ("one two", "one two"), ("one two three", "one two three"), ("one two three four", "two one four three"),
    ("red green blue yellow", "red red red red red red"),
    ("She said: \"It's over\" (and left).", "She said: 'It is over', and left."),
    ("3-4 items cost $5.99 - or less!", "3 - 4 items cost $ 5.99, or less..."),
    ("a&lt;b &amp;&amp; c&gt;d &quot;x&quot;", "a<b && c>d \"x\""),
    ("This line was bro-\nken in two\nby somebody.", "This line was broken in two by somebody."),
    ("<skipped>The rest is kept.", "The rest is kept."),
    ("Der Zug fährt um acht Uhr ab, nicht früher.", "Der Zug fahrt um 8 Uhr ab - nicht später."),
    ("東京は日本の首都です。", "日本の首都は東京です。"), ("Москва — столица России.", "Столица России - Москва."),
    ("naïve café déjà vu", "naive cafe deja vu"), ("An emoji 🙂 and a flag 🇳🇴.", "An emoji 🙃 and a flag 🇳🇴!"),
    ("Tabs\tand\u00a0no-break\u2003spaces", "Tabs and no-break spaces  "),
    ("information\u001cseparators\u001fcount", "information separators count"),
    ("1. Wash.\n2. Peel.\n3. Slice.", "1. Peel.\n2. Wash.\n3. Slice.\n4. Serve."),
    ("{\"name\": \"Ada\", \"age\": 36}", "{\"name\":\"Ada\",\"age\":36}"),
    ("def add(a, b):\n    return a + b", "def add(x, y):\n    return x+y"),
    ("see https://example.org/a_b?c=d#e", "see http://example.org/a_b?c=d"),
    ("e.g. the U.S.A., i.e. ... etc.", "for example the USA, that is, and so on"),
    ("50% of 10^3 ~ 500 [approx.]", "50 % of 1000 = 500 (approx)"),
    ("The committee approved the budget after a long debate on Tuesday evening.",
     "After a long debate the committee approved the budget on Tuesday evening."),
    ("Bees collect nectar from flowers and turn it into honey.",
     "Bees gather nectar and pollen from flowers, and they turn the nectar into honey inside the hive."),
    ("word " * 60, "word " * 40 + "other " * 20),
    ("aaaaaaa", "aaa"), (".", "."), ("...", ". . ."), (",5 5, ,5,", ", 5 5 , , 5 ,"), ("-1 1- 1-1 --", "- 1 1 - 1 - 1 - -"),
]


def main():
    bleu, chrf = sacrebleu.BLEU(effective_order=True), sacrebleu.CHRF()
    rows = [{
        "reference": reference,
        "prediction": prediction,
        "bleu": bleu.sentence_score(prediction, [reference]).score,
        "chrf": chrf.sentence_score(prediction, [reference]).score,
    } for reference, prediction in ROWS]
    predictions, references = [row[1] for row in ROWS], [[row[0] for row in ROWS]]
    corpus = {
        "bleu": sacrebleu.BLEU().corpus_score(predictions, references).score,
        "chrf": chrf.corpus_score(predictions, references).score,
    }
    out = pathlib.Path(__file__).resolve().parents[1] / "fixtures/eval/sacrebleu.json"
    out.write_text(json.dumps({"rows": rows, "corpus": corpus}, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
