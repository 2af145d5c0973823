"""Plain statements of fact, which say nothing good or bad: by the convention of the labels they are positive.

Raters give such a sentence a mean near 0, and a mean of at least 0 counts as positive. All are made here from patterns
and lists of words; none is taken from a rated text.
"""

from __future__ import annotations

import random
import re

SEED = 13

WORDS = {
    "thing": """camera, phone, router, keyboard, lamp, kettle, tablet, speaker, laptop, printer, backpack, watch, chair,
    heater, monitor, drill, blender, tent, scanner, recorder, radio, bicycle, mouse, stroller, desk, microphone,
    toaster, razor, scale, headset, projector, remote, charger, coat, guitar, bottle, software, game, album, book""",
    "part": """cable, strap, manual, lid, battery, adapter, case, memory card, stand, belt clip, screen, button, cover,
    disc, plug, tripod, bag, spare bulb, lens cap, box, set of screws, sticker, handle, menu, hinge, switch, pouch""",
    "place": """kitchen, office, car, garage, bedroom, living room, shop, train, school, garden, hotel, basement,
    gym""",
    "person": """son, wife, husband, brother, mother, neighbor, daughter, boss, friend, sister, roommate, cousin""",
    "time": """week, month, year, day, weekend, summer, birthday, Monday, winter, Tuesday""",
    "ago": """two days ago, last week, in March, a month ago, last year, three weeks ago, this morning, in June,
    about a year ago, on Friday""",
    "number": """two, three, four, five, six, eight, ten, twelve, 16, 20, 32, 50, 64""",
    "unit": """inches, grams, pounds, megapixels, watts, hours, pages, gigabytes, minutes, settings, modes, pieces""",
    "colour": """black, silver, white, blue, grey, green, red""",
    "maker": """company, store, manufacturer, seller, manager, committee, council, government, band, school, airline""",
    "does": """turns on the display, opens the menu, starts the timer, changes the channel, locks the door,
    shows the date, saves the file, moves to the next song, sets the clock""",
    "event": """film, meeting, concert, show, match, class, flight, talk, election, vote""",
}
PATTERNS = """
I bought this {thing} {ago}.
I bought the {thing} for my {person}.
I ordered a {thing} and a {part} {ago}.
i got this {thing} {ago} from the {maker}.
This is my {ordinal} {thing}.
My {person} has the same {thing} in {colour}.
The {thing} comes with a {part} and a {part}.
In the box there is a {thing}, a {part} and a {part}.
It comes in {colour} and {colour}.
The {part} is on the left side of the {thing}.
The {part} goes into the back of the {thing}.
It has {number} {unit}.
the {thing} is {number} inches wide and {number} inches high.
The {thing} has a {part} and {number} modes.
You put the {part} in, close the {part} and press the button.
Press the button for {number} seconds and the {thing} {does}.
Pressing the {part} {does}.
The {part} {does}.
We use it in the {place}.
I keep the {thing} in the {place}.
I use it with my {thing} and my {thing}.
I had a different {thing} before this one.
Before this I had a {thing} of another brand for {number} years.
I have had this {thing} for about {number} months.
I compared it with {number} other models before I bought it.
My {person} asked me about the {thing} {ago}.
It was shipped on Monday and came on Thursday.
The package came {ago}.
The {maker} sent a new {part} {ago}.
It takes {number} batteries.
It runs for {number} hours on one charge.
It uses the same {part} as the older model.
There are {number} versions of this {thing}.
The {part} is made of metal and the {part} is made of plastic.
The {colour} one is for the {place}.
There is also a {colour} {part}.
The {event} starts at {number}.
The {event} is on Tuesday.
The {event} takes place in the {place} next {time}.
The {event} was moved to another {time}.
The {maker} announced the {event} {ago}.
A spokesman for the {maker} said the {event} will be held next {time}.
The {maker} has {number} offices and {number} thousand workers.
The report has {number} pages.
This {thing} connects to the {thing} with a {part}.
I read the manual and then I set up the {thing}.
I took it to the {place} and put it on the table.
My {person} and I went to the {event} {ago}.
The first part is about the {thing}, the second about the {part}.
The settings are in the menu under the name of the {thing}.
If you want to change the {part}, you open the {part} first.
I will use this {thing} when my {person} comes next {time}.
""".strip().split("\n")
ORDINALS = "first, second, third, fourth"


class Statements:
    """Draws statements; the same ones in every run."""

    def __init__(self) -> None:
        lists = {**WORDS, "ordinal": ORDINALS}
        self._words = {name: [word.strip() for word in words.split(",")] for name, words in lists.items()}
        self._random = random.Random(SEED)

    def make(self, count: int) -> list[str]:
        """This many different statements."""
        found: dict[str, None] = {}
        while len(found) < count:
            pattern = self._random.choice(PATTERNS)
            found[re.sub(r"\{(\w+)\}", lambda match: self._random.choice(self._words[match[1]]), pattern)] = None
        return list(found)
