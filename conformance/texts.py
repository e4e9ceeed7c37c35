"""The texts that the checks send."""

QUERY = "how tall is the eiffel tower"
RIGHT = "The Eiffel Tower is 330 metres tall."
DOCUMENTS = (
    "Penguins eat krill, squid and fish.",
    RIGHT,
    "The Louvre is a museum in Paris.",
    "Bread is made from flour, water, salt and yeast.",
)

QUESTIONS = (
    (
        "what do penguins eat",
        "Penguins feed on krill, squid and fish.",
        "The Eiffel Tower was built in 1889.",
    ),
    (
        "who wrote romeo and juliet",
        "Romeo and Juliet is a tragedy by William Shakespeare.",
        "Copper conducts electricity very well.",
    ),
    (
        "how do i reset my password",
        "To reset your password, open the settings and choose Forgot password.",
        "Our office is closed on public holidays.",
    ),
    (
        "at what temperature does water boil",
        "At sea level, water boils at 100 degrees Celsius.",
        "The violin is the smallest instrument of its family.",
    ),
)
"""Questions, each with a right passage and one on another topic, which every model tells apart."""

UNICODE = (
    "Der Eiffelturm ist 330 Meter hoch, größer als die Höhe zuvor.",
    "エッフェル塔の高さは330メートルです。",
    "برج إيفل يبلغ ارتفاعه 330 مترا",
    "Эйфелева башня имеет высоту 330 метров",
    "🗼 👩‍👩‍👧‍👦 e\u0301 \u200bx",
    "a \u0000 b \t\n c",
)

PROSE = "The river runs from the hills to the sea, and the old road follows it all the way. " * 4
LONG = "The river runs from the hills to the sea. " * 2_000
"""About 20,000 tokens: too long for every cross-encoder."""

LONG_DOCUMENTS = (DOCUMENTS[0], RIGHT, LONG)
