"""The sequences of DAVIS-2017 and their lengths.

Source: `davisinteractive/dataset/davis.json` of albertomontesg/davis-interactive (be7a7e50); the sums are those of
`eval.davis.fingerprint.PUBLISHED_SIZES`.
"""

_TRAIN = """
bear 82, bmx-bumps 90, boat 75, boxing-fisheye 87, breakdance-flare 71, bus 80, car-turn 80, cat-girl 89, classic-car 63,
color-run 84, crossing 52, dance-jump 60, dancing 62, disc-jockey 76, dog-agility 25, dog-gooses 86, dogs-scale 83,
drift-turn 64, drone 91, elephant 80, flamingo 80, hike 80, hockey 75, horsejump-low 60, kid-football 68, kite-walk 80,
koala 100, lady-running 65,
lindy-hop 73, longboard 52, lucia 70, mallard-fly 70, mallard-water 80, miami-surf 70, motocross-bumps 60, motorbike 43,
night-race 46, paragliding 70, planes-water 38, rallye 50, rhino 90, rollerblade 35, schoolgirls 80, scooter-board 91,
scooter-gray 75, sheep 68, skate-park 80, snowboard 66, soccerball 48, stroller 91, stunt 71, surf 55, swing 60, tennis 70,
tractor-sand 76, train 80, tuk-tuk 59, upside-down 65, varanus-cage 67, walking 72
"""
_VAL = """
bike-packing 69, blackswan 50, bmx-trees 80, breakdance 84, camel 90, car-roundabout 75, car-shadow 40, cows 104, dance-twirl 90,
dog 60, dogs-jump 66, drift-chicane 52, drift-straight 50, goat 90, gold-fish 78, horsejump-high 50, india 81, judo 34, kite-surf 50,
lab-coat 47, libby 49, loading 50, mbike-trick 79, motocross-jump 40, paragliding-launch 80, parkour 100, pigs 79, scooter-black 43,
shooting 40, soapbox 99
"""


def _lengths(text: str) -> dict[str, int]:
    return {name: int(frames) for name, frames in (entry.split() for entry in text.split(","))}


PUBLISHED_FRAMES: dict[str, dict[str, int]] = {"train": _lengths(_TRAIN), "val": _lengths(_VAL)}
"""Split -> sequence -> frames."""
