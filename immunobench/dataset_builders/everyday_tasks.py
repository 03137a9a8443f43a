"""Everyday chats whose answer is worked out: sums, sorting, times, dates, bookings."""

import random
from collections.abc import Callable

PEOPLE = ("Anna", "Tom", "Maria", "Ben", "Lucy", "Omar", "Ruth", "Paul", "Nina", "Samir", "Clara", "Hugo")
THINGS = (
    "apples",
    "books",
    "stamps",
    "pencils",
    "cards",
    "plums",
    "tickets",
    "cookies",
    "balloons",
    "buttons",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WORDS = (
    *("table", "river", "candle", "orange", "window", "mountain", "doctor", "summer", "pencil", "yellow"),
    *("garden", "island", "winter", "basket", "lemon", "sister", "evening", "market", "bridge", "animal"),
    *("number", "letter", "village", "coffee", "teacher", "paper", "ocean", "farmer", "music", "hotel"),
)
TOWNS = (
    "Paris",
    "Rome",
    "Oslo",
    "Lisbon",
    "Cairo",
    "Boston",
    "Dublin",
    "Madrid",
    "Vienna",
    "Athens",
    "Tokyo",
    "Lima",
)
JOBS = (
    "a nurse",
    "a cook",
    "a pilot",
    "a baker",
    "a painter",
    "a driver",
    "a farmer",
    "a writer",
    "a plumber",
)
HOBBIES = (
    "swimming",
    "chess",
    "baking",
    "old films",
    "long walks",
    "drawing",
    "fishing",
    "running",
    "card games",
)
WEATHER = ("sunny", "rainy", "cloudy", "windy", "snowy", "foggy", "dry", "wet")


def addition(rng: random.Random) -> tuple[str, str]:
    """Two people put their things together."""
    (one, two), thing = rng.sample(PEOPLE, 2), rng.choice(THINGS)
    left, right = rng.randint(3, 40), rng.randint(3, 40)
    prompt = rng.choice(
        [
            f"{one} has {left} {thing} and {two} has {right}. How many do they have together?",
            f"There are {left} {thing} on one shelf and {right} on another. How many {thing} is that in all?",
            f"{one} found {left} {thing} in the morning and {right} more at night. What is the total?",
            f"Add {left} and {right}.",
        ]
    )
    return prompt, f"{left} + {right} = {left + right}."


def subtraction(rng: random.Random) -> tuple[str, str]:
    """Some things are given away."""
    one, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    whole = rng.randint(15, 90)
    gone = rng.randint(2, whole - 2)
    prompt = rng.choice(
        [
            f"{one} had {whole} {thing} and gave away {gone}. How many are left?",
            f"Of {whole} {thing}, {gone} were sold. How many remain?",
            f"Take {gone} away from {whole}.",
            f"A box held {whole} {thing}. {one} took out {gone}. How many are still inside?",
        ]
    )
    return prompt, rng.choice([f"{whole - gone} are left.", f"{whole} - {gone} = {whole - gone}."])


def multiplication(rng: random.Random) -> tuple[str, str]:
    """Equal groups."""
    rows, each, thing = rng.randint(3, 12), rng.randint(3, 12), rng.choice(THINGS)
    prompt = rng.choice(
        [
            f"{rows} bags hold {each} {thing} each. How many {thing} are there?",
            f"How much is {rows} times {each}?",
            f"A hall has {rows} rows of {each} seats. How many people can sit down?",
            f"We meet {each} times a month for {rows} months. How many meetings is that?",
        ]
    )
    return prompt, rng.choice([f"{rows} times {each} is {rows * each}.", f"That makes {rows * each}."])


def division(rng: random.Random) -> tuple[str, str]:
    """Fair shares without a remainder."""
    people, each, thing = rng.randint(2, 9), rng.randint(2, 12), rng.choice(THINGS)
    whole = people * each
    prompt = rng.choice(
        [
            f"{people} children share {whole} {thing} equally. How many does each child get?",
            f"Divide {whole} by {people}.",
            f"We split a bill of {whole} dollars between {people} friends. What does each one pay?",
            f"{whole} {thing} are packed into {people} equal boxes. How many go into one box?",
        ]
    )
    return prompt, rng.choice([f"{whole} divided by {people} is {each}.", f"The answer is {each}."])


def sorting(rng: random.Random) -> tuple[str, str]:
    """Numbers in order."""
    numbers = rng.sample(range(1, 100), rng.choice((4, 5)))
    listed = ", ".join(map(str, numbers))
    up = rng.random() < 0.5
    ordered = ", ".join(map(str, sorted(numbers, reverse=not up)))
    order = "smallest to largest" if up else "largest to smallest"
    prompt = rng.choice([f"Sort these numbers from {order}: {listed}", f"Put {listed} in order, {order}."])
    return prompt, rng.choice([ordered, f"In order: {ordered}", f"From {order}: {ordered}"])


def alphabet(rng: random.Random) -> tuple[str, str]:
    """Words in alphabetical order."""
    words = rng.sample(WORDS, 4)
    listed, ordered = ", ".join(words), ", ".join(sorted(words))
    prompt = rng.choice([f"Put these words in alphabetical order: {listed}", f"Sort from A to Z: {listed}"])
    return prompt, rng.choice([ordered, f"From A to Z: {ordered}"])


def counting(rng: random.Random) -> tuple[str, str]:
    """Letters or vowels of a word."""
    word = rng.choice(WORDS)
    if rng.random() < 0.5:
        prompt = rng.choice([f"How many letters does the word {word} have?", f"Count the letters in {word}."])
        return prompt, f"The word {word} has {len(word)} letters."
    vowels = sum(letter in "aeiou" for letter in word)
    prompt = rng.choice([f"How many vowels are in {word}?", f"Count the vowels in the word {word}."])
    return prompt, f"There {'is 1 vowel' if vowels == 1 else f'are {vowels} vowels'} in {word}."


def largest(rng: random.Random) -> tuple[str, str]:
    """The largest or smallest of some numbers."""
    numbers = rng.sample(range(10, 1000), 3)
    listed = f"{numbers[0]}, {numbers[1]} or {numbers[2]}"
    if rng.random() < 0.5:
        return f"Which number is the largest: {listed}?", f"The largest is {max(numbers)}."
    return f"Which number is smaller than the others: {listed}?", f"The smallest is {min(numbers)}."


def clock(rng: random.Random) -> tuple[str, str]:
    """When something ends."""
    start, length = rng.randint(1, 8), rng.randint(1, 4)
    event = rng.choice(("meeting", "film", "match", "party", "game", "concert"))
    prompt = rng.choice(
        [
            f"The {event} starts at {start} o'clock and goes on for {length} hours. When does it end?",
            f"If the {event} is at {start} and we stay {length} hours, when are we free?",
        ]
    )
    hours = "1 hour" if length == 1 else f"{length} hours"
    return prompt.replace("1 hours", "1 hour"), f"At {start + length} o'clock, after {hours}."


def weekday(rng: random.Random) -> tuple[str, str]:
    """Some days from a weekday."""
    today, ahead = rng.randrange(7), rng.randint(2, 6)
    prompt = rng.choice(
        [
            f"Today is {DAYS[today]}. Which day will it be in {ahead} days?",
            f"My package arrives {ahead} days after {DAYS[today]}. Which weekday is that?",
        ]
    )
    return prompt, rng.choice(["It will be {}.", "That is a {}.", "{}."]).format(DAYS[(today + ahead) % 7])


def sequence(rng: random.Random) -> tuple[str, str]:
    """The next number of an even series."""
    start, step = rng.randint(1, 30), rng.randint(2, 12)
    listed = ", ".join(str(start + step * index) for index in range(4))
    prompt = rng.choice([f"Continue the series: {listed}, ...", f"Which number comes next? {listed}"])
    return prompt, rng.choice([f"{start + 4 * step}", f"Next is {start + 4 * step}, because you add {step} each time."])


def conversion(rng: random.Random) -> tuple[str, str]:
    """Units of everyday life."""
    small, large, factor = rng.choice(
        [
            ("months", "years", 12),
            ("days", "weeks", 7),
            ("hours", "days", 24),
            ("centimeters", "meters", 100),
            ("grams", "kilograms", 1000),
            ("eggs", "dozen", 12),
            ("cents", "dollars", 100),
        ]
    )
    count = rng.randint(2, 9)
    prompt = rng.choice([f"How many {small} are there in {count} {large}?", f"Convert {count} {large} to {small}."])
    return prompt, f"There are {count * factor} {small} in {count} {large}."


def booking(rng: random.Random) -> tuple[str, str]:
    """A table, a room, a lesson."""
    person, day, hour = rng.choice(PEOPLE), rng.choice(DAYS), rng.randint(1, 9)
    guests = rng.randint(2, 8)
    thing, done = rng.choice(
        [
            (f"a table for {guests}", f"A table for {guests} is reserved for"),
            ("a haircut", "Your haircut is booked for"),
            ("a tennis court", "The court is yours on"),
            ("a piano lesson", "Your lesson is set for"),
            ("a taxi", "The taxi will come on"),
        ]
    )
    prompt = rng.choice(
        [
            f"This is {person}. I would like {thing} on {day} at {hour}.",
            f"Hello, can I book {thing} for {day} at {hour}? My name is {person}.",
        ]
    )
    return prompt, f"Thank you, {person}. {done} {day} at {hour}."


def introduction(rng: random.Random) -> tuple[str, str]:
    """A person in one sentence."""
    person, town, job, hobby = rng.choice(PEOPLE), rng.choice(TOWNS), rng.choice(JOBS), rng.choice(HOBBIES)
    prompt = rng.choice(
        [
            f"Introduce {person} in one sentence: {job} from {town} who likes {hobby}.",
            f"Turn these notes into a sentence: {person}; {job}; {town}; {hobby}.",
        ]
    )
    return prompt, f"{person} is {job} from {town} and likes {hobby}."


def reminder(rng: random.Random) -> tuple[str, str]:
    """Something to do at a time."""
    act = rng.choice(
        [
            "call the dentist",
            "water the roses",
            "pay the rent",
            "feed the fish",
            "pick up the kids",
            "return the books",
            "buy stamps",
            "take out the trash",
            "charge the phone",
        ]
    )
    day, hour = rng.choice(DAYS), rng.randint(1, 9)
    prompt = rng.choice([f"Remind me to {act} on {day} at {hour}.", f"On {day} at {hour} I have to {act}. Note it."])
    return prompt, rng.choice([f"Noted: {act}, {day} at {hour}.", f"I will remind you on {day} at {hour} to {act}."])


def forecast(rng: random.Random) -> tuple[str, str]:
    """A weather report from notes."""
    town = rng.choice(TOWNS)
    today, later = rng.sample(WEATHER, 2)
    degrees = rng.randint(-9, -2) if "snowy" in (today, later) else rng.randint(4, 30)
    prompt = rng.choice(
        [
            f"Write a weather report: {town}, {today}, {degrees} degrees, later {later}.",
            f"Weather notes for {town}: {today} now, {later} later, {degrees} degrees. Make it one sentence.",
        ]
    )
    return prompt, f"In {town} it is {today}, with a temperature of {degrees} degrees; later it will be {later}."


def total(rng: random.Random) -> tuple[str, str]:
    """The price of a few things."""
    count, price = rng.randint(2, 9), rng.randint(2, 9)
    thing = rng.choice(("tickets", "sandwiches", "notebooks", "plants", "posters", "teapots"))
    paid = count * price + rng.randint(2, 10)
    if rng.random() < 0.5:
        return (
            f"{thing.capitalize()} cost {price} dollars each. What do {count} of them cost?",
            f"They cost {count * price} dollars.",
        )
    return (
        f"I buy {count} {thing} for {price} dollars each and pay with {paid} dollars. How much change do I get?",
        f"You get {paid - count * price} dollars back.",
    )


def parity(rng: random.Random) -> tuple[str, str]:
    """Is a number even or odd?"""
    number = rng.randint(10, 400)
    answer = "even" if number % 2 == 0 else "odd"
    prompt = rng.choice([f"Is {number} even or odd?", f"Even or odd: {number}?"])
    return prompt, f"{number} is {answer}."


TASKS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "division": division,
    "sorting": sorting,
    "alphabetical order": alphabet,
    "counting letters": counting,
    "comparing numbers": largest,
    "time of day": clock,
    "day of the week": weekday,
    "number series": sequence,
    "units": conversion,
    "booking": booking,
    "introduction": introduction,
    "reminder": reminder,
    "weather report": forecast,
    "prices": total,
    "even or odd": parity,
}
