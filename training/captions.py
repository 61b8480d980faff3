"""Captions of a scene, drawn from many templates, and the word list that the tokenizer learns.

Captions name the object always and mostly also the colour, the style and the viewpoint. Some carry
filler words that mean nothing, so that the encoder learns to pass over words it cannot use.
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


def article(noun: str) -> str:
    """`noun` with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


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
    adjectives = [_pick(rng, ADJECTIVES)] if rng.random() < 0.2 else []
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
    return (article(phrase) if rng.random() < 0.85 else phrase) + after


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
    if rng.random() < 0.12:
        caption = f"{caption}, {_pick(rng, FILLERS)}"
    return caption


def word_list() -> list[str]:
    """Every word that a caption can hold, most wanted first: the tokenizer's training text."""
    phrases = [
        *OBJECTS, *STYLES, *COLOURS, *GENERIC, *(w for words in SYNONYMS.values() for w in words),
        *(w for words in PAINTER_NAMES.values() for w in words), *MEDIA, *ADJECTIVES, *FILLERS,
        *BACKGROUNDS, *PLAIN_STYLES,
        "upside down turned tilted upright to the side painted by as of",
        "drawing sketch artwork icon standing lying next near under over table floor an a",
        "this that is it two",
    ]  # fmt: skip
    words = {
        word for phrase in phrases for word in phrase.replace("{c}", "").replace("{ac}", "").split()
    }
    return sorted(words)
