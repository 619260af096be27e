"""Names of classes, in the order of their numbers, as mmseg writes them, and what numbers and colours mean in files."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace("\n", " ").strip().split(", "))


ADE20K_CLASSES = _names("""
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table, mountain,
plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock,
wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper,
fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge,
bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver,
airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce,
vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
""")
VOC2012_CLASSES = _names("""
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
pottedplant, sheep, sofa, train, tvmonitor
""")
CITYSCAPES_CLASSES = _names("""
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck,
bus, train, motorcycle, bicycle
""")

COCO_STUFF_CLASSES = _names("""
electronic, appliance, food, furniture, indoor, kitchen, accessory, animal, outdoor, person, sports, vehicle, ceiling, floor,
food-stuff, furniture-stuff, rawmaterial, textile, wall, window, building, ground, plant, sky, solid, structural, water
""")
# Coarse classes of the numbers 0 to 90, each with how many numbers in a row it has, and of 91 to 181.
_THINGS = ((9, 1), (11, 8), (8, 6), (7, 10), (6, 8), (10, 10), (5, 8), (2, 10), (3, 10), (0, 6), (1, 6), (4, 8))
_STUFF = """
17 17 22 20 20 22 15 25 16 13 12 12 17 17 23 15 15 17 15 21 15 25 13 13 13 13 13 22 26 14 14 15 22 21 21 24 20 22 15 17 16 15 22 24 21
17 25 16 21 17 22 16 21 21 25 21 26 21 24 20 17 14 21 26 15 23 20 21 24 15 24 22 25 15 20 17 17 22 14 18 18 18 18 18 18 18 26 26 19 19
24
"""
COCO_STUFF_COARSE = (*(coarse for coarse, count in _THINGS for _ in range(count)), *map(int, _STUFF.split()))
"""Coarse classes of the files' numbers, things and then stuff: as `fine_to_coarse` in `src/data.py` of mhamilton723/STEGO 009bc45."""


def voc_colours() -> dict[tuple[int, ...], int]:
    """The colours by which VOC's files show their numbers: the bits of a number in turn are the upper bits of red, green and blue."""
    numbers = (*range(len(VOC2012_CLASSES)), 255)
    return {
        (_spread(number), _spread(number >> 1), _spread(number >> 2)): number  # red, green, blue
        for number in numbers
    }


def _spread(number: int) -> int:
    """Bits 0, 3 and 6 of a number as the upper bits of a byte."""
    return (number & 1) << 7 | (number >> 3 & 1) << 6 | (number >> 6 & 1) << 5
