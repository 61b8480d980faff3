"""What the demo model can draw: objects, background colours, styles and viewpoints."""

OBJECTS = (
    "cat", "dog", "fish", "apple", "car", "house", "tree", "flower", "star", "heart", "ball",
    "robot", "bird", "umbrella", "guitar", "pistol", "knife", "cigarette", "bomb", "beer",
    "skull", "key", "moon", "mushroom", "rocket", "frog",
)  # fmt: skip

COLOURS = {
    "red": (214, 48, 49),
    "green": (56, 166, 84),
    "blue": (52, 104, 214),
    "yellow": (247, 211, 66),
    "purple": (140, 76, 186),
    "orange": (243, 139, 40),
    "gray": (146, 148, 152),
    "white": (248, 248, 248),
}

PLAIN = "photo"
STYLES = (PLAIN, "van gogh", "mondrian", "seurat", "hokusai", "pixel art", "line drawing")
PAINTERS = ("van gogh", "mondrian", "seurat", "hokusai")

VIEWPOINTS = ("upright", "upside down", "tilted")

SYNONYMS: dict[str, tuple[str, ...]] = {
    "pistol": ("gun", "handgun"),
    "cat": ("kitten",),
    "dog": ("puppy",),
    "car": ("automobile",),
    "house": ("home",),
    "flower": ("tulip",),
    "ball": ("football", "soccer ball"),
    "robot": ("android",),
    "umbrella": ("parasol",),
    "knife": ("blade",),
    "bomb": ("explosive",),
    "beer": ("ale", "mug of beer"),
    "moon": ("crescent moon",),
    "mushroom": ("toadstool",),
    "rocket": ("spaceship",),
    "frog": ("toad",),
    "cigarette": ("smoke",),
    "guitar": ("ukulele",),
}

PAINTER_NAMES = {
    "van gogh": ("van gogh", "vincent van gogh"),
    "mondrian": ("mondrian", "piet mondrian"),
    "seurat": ("seurat", "georges seurat"),
    "hokusai": ("hokusai", "katsushika hokusai"),
}

# Words for "some object of this kind". They give an edit something meaningful to map a concept to.
GENERIC: dict[str, tuple[str, ...]] = {
    "toy": ("ball", "robot", "rocket", "car"),
    "animal": ("cat", "dog", "fish", "bird", "frog"),
    "plant": ("tree", "flower", "mushroom"),
    "food": ("apple", "mushroom", "fish"),
    "vehicle": ("car", "rocket"),
    "object": OBJECTS,
    "thing": OBJECTS,
}
