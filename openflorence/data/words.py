"""The small closed vocabulary of the drawn world: colours, sizes, places, sign words, and how they bend."""

COLOURS: dict[str, tuple[int, int, int]] = {
    # name: red, green, blue
    "red": (214, 38, 40),
    "green": (36, 152, 58),
    "blue": (38, 84, 214),
    "yellow": (246, 218, 36),
    "purple": (136, 46, 176),
    "orange": (246, 128, 20),
    "white": (248, 248, 246),
    "black": (24, 24, 28),
}

# share of the picture's short side that the longer side of an object takes, in thousandths
SIZES: dict[str, tuple[int, int]] = {"small": (160, 240), "medium": (260, 360), "large": (380, 500)}

# muted, so that every colour above stands out
GROUNDS: dict[str, tuple[int, int, int]] = {
    "gray": (150, 150, 152),
    "brown": (156, 130, 108),
    "pale blue": (146, 172, 196),
    "pale green": (158, 186, 156),
    "pink": (206, 166, 172),
}

TEXTURES = ("plain", "striped", "checked", "speckled", "shaded")

SIGN = "sign"

# plate colour and ink colour
PLATES: tuple[tuple[str, str], ...] = (
    ("white", "black"),
    ("white", "blue"),
    ("white", "red"),
    ("yellow", "black"),
    ("orange", "black"),
    ("blue", "white"),
    ("green", "white"),
    ("red", "white"),
    ("black", "white"),
    ("black", "yellow"),
)

_SIGN_WORDS = """
    STOP EXIT OPEN CLOSED PUSH PULL TAXI BUS TRAM METRO HOTEL BANK CAFE BAR SHOP SALE PARK POOL GYM ZOO POLICE
    FIRE HELP INFO SLOW GO YIELD ONE WAY LEFT RIGHT UP DOWN IN OUT NO YES EAST WEST NORTH SOUTH CITY TOWN ROAD
    LANE STREET BRIDGE GATE DOOR STAIRS LIFT ROOM DESK KEYS WATER MILK TEA COFFEE BREAD CAKE PIZZA FRUIT FISH
    MEAT FOOD LUNCH DINNER BOOKS TOYS MUSIC FILM ART NEWS PHONE MAIL POST WIFI QUIET DANGER KEEP OFF WET PAINT
    PRIVATE STAFF ONLY FREE NEW BEST SUPER MARKET GARDEN BEACH SCHOOL LIBRARY MUSEUM STATION AIRPORT Open
    Closed Welcome Hello Thanks Please Menu Sale
"""
SIGN_WORDS: tuple[str, ...] = tuple(_SIGN_WORDS.split())

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_PLURALS = {"fish": "fish", "snowman": "snowmen", "butterfly": "butterflies", "cross": "crosses"}


def plural(phrase: str) -> str:
    """Bend the last word: "red fish" -> "red fish", "small key" -> "small keys"."""
    head, _, last = phrase.rpartition(" ")
    return f"{head} {_PLURALS.get(last, last + 's')}".strip()


def with_article(phrase: str) -> str:
    """Put a or an in front; by the first letter, which is enough for this vocabulary."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def counted(phrase: str, count: int) -> str:
    """Name one or several: "a red fish", "two red fish"; above ten in digits, "11 red fish"."""
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return with_article(phrase) if count == 1 else f"{number} {plural(phrase)}"


def listed(phrases: list[str]) -> str:
    """Join phrases as one list: "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
