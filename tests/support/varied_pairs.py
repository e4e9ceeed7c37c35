"""Query and document pairs with all kinds of text that have broken a tokenizer or a model.

The pairs are seeded: the same count gives the same pairs. All texts are made up.
"""

import random

WORDS = (
    "river bridge light energy water capital history music science moon rain market letter "
    "engine garden winter doctor island reason silver planet window"
)

STRANGE = (
    "",
    " ",
    "a",
    "?",
    "🙂",
    "👩‍🚀 on the 🌙 with 🏳️‍🌈 flags",
    "日本語の文章と中文文本",
    "한국어 문장입니다",
    "Straße, naïve café, ﬁne ligature, Ⅳ and ½",
    "e\u0301\u0302\u0303 combining marks",
    "\x00\x01\x07 control \x1b[31m characters \x7f\x85",
    "zero\u200bwidth\u200djoiners\ufeff and \u202eright to left",
    "[CLS] [SEP] [MASK] [PAD] <s> </s> <mask>",
    "tabs\tand\nnew\r\nlines\u2028",
    "ไม่มีช่องว่างระหว่างคำ",
    "مرحبا بالعالم",
    "x" * 150,
    "no-break\u00a0space " * 5,
    "\ufffd\U0010ffff\ue000",
    "12345678901234567890 3.14e-10 #@!%^&*()",
)


def varied_pairs(count: int, words_max: int = 90, long_texts: int = 12) -> list[tuple[str, str]]:
    """Return ``count`` pairs; ``long_texts`` documents exceed 512 tokens, one has 200 KB."""
    rng = random.Random(7)
    words = WORDS.split()
    pairs = []
    for _ in range(count):
        query = " ".join(rng.choices(words, k=rng.randint(1, 12)))
        document = " ".join(rng.choices(words, k=rng.randint(1, words_max)))
        pairs.append((query, document))
    for place, text in enumerate(STRANGE):
        pairs[place] = (pairs[place][0], text)
        pairs[place + 20] = (text, pairs[place][1])
        pairs[place + 40] = (text, rng.choice(STRANGE))
    for place in range(long_texts):
        query, document = pairs[60 + place]
        pairs[60 + place] = (query, f"{document} " * 300)
    if long_texts:
        pairs[60] = (pairs[60][0], "rain and light over " * 10_000)
    return pairs
