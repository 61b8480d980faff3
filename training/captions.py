"""Captions of a scene, drawn from many templates, and the word list that the tokenizer learns.

Captions name the object always and mostly also the colour, the style and the viewpoint. Some carry
everyday words that mean nothing here, or words made of random letters, so that the encoder learns
to pass over what it cannot use, as one trained on the open web does.
"""

import numpy as np

from training.scenes import Scene
from training.vocabulary import (
    COLOURS,
    GENERIC,
    OBJECTS,
    PAINTER_NAMES,
    PAINTERS,
    PLAIN,
    STYLES,
    SYNONYMS,
)

MEDIA = ("photo", "picture", "image", "photograph", "painting", "rendering")
ADJECTIVES = (
    "small", "little", "big", "large", "cute", "nice", "beautiful", "simple", "single", "lovely",
    "shiny", "old", "new", "plain", "bright", "pretty", "funny", "clean", "typical", "fine",
)  # fmt: skip
DETERMINERS = (
    "the",
    "one",
    "my",
    "this",
    "that",
    "some",
    "your",
    "his",
    "her",
    "our",
    "any",
    "every",
)
EVERYDAY = (
    "huge", "tiny", "wooden", "modern", "famous", "classic", "happy", "sad", "perfect", "real",
    "fresh", "quiet", "warm", "cold", "soft", "hard", "heavy", "light", "fast", "slow", "young",
    "strange", "common", "special", "good", "great", "best", "clear", "sharp", "wild", "gentle",
    "cheap", "rare", "lonely", "favorite", "magic", "giant", "round", "tall", "short", "long",
    "wide", "metal", "plastic", "glass", "paper", "stone", "golden", "digital", "realistic",
    "detailed", "professional", "amazing", "elegant", "fancy", "cool", "and", "with", "from",
    "into", "over", "under", "near", "behind", "beside", "between", "during", "about", "after",
    "before", "today", "now", "here", "there", "outside", "inside", "alone", "together",
    "standing", "lying", "sitting", "floating", "resting", "shown", "placed", "seen", "isolated",
    "centered", "close", "up", "down", "view", "shot", "scene", "table", "floor", "room",
    "street", "garden", "kitchen", "beach", "forest", "city", "sky", "night", "day", "morning",
    "summer", "winter", "world", "artwork", "poster", "sticker", "icon", "cover", "print", "card",
    "studio", "camera", "lens", "quality", "resolution", "style", "art", "two", "three", "very",
    "really", "just", "only", "not", "no", "so", "it", "its", "is", "are", "was", "there",
    "which", "has", "have", "for", "to", "at",
)  # fmt: skip
FILLERS = (
    "high quality", "highly detailed", "for a book", "in the studio", "with soft light",
    "in the center",
    "seen from the front", "in full view", "very clear", "best quality", "by itself", "at home",
    "for children", "as seen today", "in the middle", "with nothing else",
)  # fmt: skip
BACKGROUNDS = (
    "on {ac} background",
    "on {ac} background",
    "on a plain {c} background",
    "with {ac} background",
    "in front of {ac} background",
    "against {ac} background",
    "in front of {ac} wall",
    "on {c}",
    "{c} background",
)
PLAIN_STYLES = (
    "in the style of a photo",
    "in the style of a painting",
    "in photo style",
    "in a plain style",
)
SYNONYM_SHARE = 0.3
GENERIC_SHARE = 0.05
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def article(noun: str) -> str:
    """`noun` with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def _idle_word(rng: np.random.Generator) -> str:
    """A word without meaning: mostly an everyday one, now and then random letters."""
    if rng.random() < 0.7:
        return _pick(rng, EVERYDAY)
    return "".join(_pick(rng, tuple(LETTERS)) for _ in range(rng.integers(2, 8)))


def _noun(scene: Scene, rng: np.random.Generator) -> str:
    generic = tuple(word for word, members in GENERIC.items() if scene.object in members)
    if generic and rng.random() < GENERIC_SHARE:
        return _pick(rng, generic)
    synonyms = SYNONYMS.get(scene.object, ())
    if synonyms and rng.random() < SYNONYM_SHARE:
        return _pick(rng, synonyms)
    return scene.object


def _subject(scene: Scene, rng: np.random.Generator) -> str:
    """The noun phrase: article, adjectives, noun and viewpoint."""
    noun = _noun(scene, rng)
    adjectives = [_pick(rng, ADJECTIVES)] if rng.random() < 0.15 else []
    if rng.random() < 0.15:
        adjectives.append(_idle_word(rng))
    after = ""
    if scene.viewpoint == "upside down":
        if rng.random() < 0.6:
            adjectives.insert(0, "upside down")
        else:
            after = _pick(rng, (" upside down", " turned upside down"))
    elif scene.viewpoint == "tilted":
        if rng.random() < 0.6:
            adjectives.insert(0, "tilted")
        else:
            after = _pick(rng, (" tilted to the side", " tilted"))
    elif rng.random() < 0.1:
        adjectives.insert(0, "upright")
    phrase = " ".join([*adjectives, noun])
    choice = rng.random()
    if choice < 0.1:
        return f"{_pick(rng, DETERMINERS)} {phrase}{after}"
    return (article(phrase) if choice < 0.87 else phrase) + after


def _styled(subject: str, style: str, rng: np.random.Generator) -> str:
    if style == PLAIN:
        caption = f"{article(_pick(rng, MEDIA))} of {subject}" if rng.random() < 0.7 else subject
        return f"{caption} {_pick(rng, PLAIN_STYLES)}" if rng.random() < 0.06 else caption
    if style in PAINTERS:
        name = _pick(rng, PAINTER_NAMES[style]) if rng.random() < 0.3 else style
        forms: tuple[str, ...] = (
            f"{subject} in the style of {name}",
            f"{article(_pick(rng, MEDIA))} of {subject} in the style of {name}",
            f"{article(_pick(rng, MEDIA))} of {subject} by {name}",
            f"{subject} by {name}",
            f"{article(name)} painting of {subject}",
            f"{subject} painted by {name}",
            f"{subject} in {name} style",
            f"{name} style {subject}",
            f"{subject}, {name}",
        )
    else:
        forms = (
            f"{article(style)} of {subject}",
            f"{subject} in the style of {style}",
            f"{subject} as {article(style)}",
            f"{subject} in {style} style",
            f"{style} of {subject}",
            f"{article(_pick(rng, MEDIA))} of {subject} in {style} style",
            f"{subject}, {style}",
        )
    return _pick(rng, forms)


def draw_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of `scene`; the colour is named in nine of ten."""
    subject = _subject(scene, rng)
    if rng.random() >= 0.9:
        caption = _styled(subject, scene.style, rng)
    else:
        background = _pick(rng, BACKGROUNDS).format(c=scene.colour, ac=article(scene.colour))
        joint = ", " if background.endswith("background") and rng.random() < 0.2 else " "
        if rng.random() < 0.65:
            caption = f"{_styled(subject, scene.style, rng)}{joint}{background}"
        else:
            caption = _styled(f"{subject} {background}", scene.style, rng)
    ending = rng.random()
    if ending < 0.08:
        caption = f"{caption}, {_pick(rng, FILLERS)}"
    elif ending < 0.2:
        words = [_idle_word(rng) for _ in range(rng.integers(1, 4))]
        caption = f"{caption}, {' '.join(words)}"
    return caption


def word_list() -> list[str]:
    """Every word that a caption can hold, most wanted first: the tokenizer's training text."""
    phrases = [
        *OBJECTS, *STYLES, *COLOURS, *GENERIC, *(w for words in SYNONYMS.values() for w in words),
        *(w for words in PAINTER_NAMES.values() for w in words), *MEDIA, *ADJECTIVES, *FILLERS,
        *DETERMINERS, *EVERYDAY, *BACKGROUNDS, *PLAIN_STYLES,
        "upside down turned tilted upright to the side painted by as of",
        "drawing sketch an a",
    ]  # fmt: skip
    words = {
        word for phrase in phrases for word in phrase.replace("{c}", "").replace("{ac}", "").split()
    }
    return sorted(words)
