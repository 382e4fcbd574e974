"""AutoAugment's 25 sub-policies per data set (Cubuk et al., CVPR 2019), as torchvision runs them.

A sub-policy is two operations with their probability and magnitude index of ten, ``-`` for none.
"""

SubPolicyOperation = tuple[str, float, int | None]  # name, probability, magnitude's index

ABBREVIATIONS = {
    "AC": "AutoContrast",
    "Bri": "Brightness",
    "Col": "Color",
    "Con": "Contrast",
    "Eq": "Equalize",
    "Inv": "Invert",
    "Post": "Posterize",
    "Rot": "Rotate",
    "Sha": "Sharpness",
    "ShX": "ShearX",
    "ShY": "ShearY",
    "Sol": "Solarize",
    "TrX": "TranslateX",
    "TrY": "TranslateY",
}

CIFAR10 = """
Inv .1 -, Con .2 6; Rot .7 2, TrX .3 9; Sha .8 1, Sha .9 3; ShY .5 8, TrY .7 9; AC .5 -, Eq .9 -;
ShY .2 7, Post .3 7; Col .4 3, Bri .6 7; Sha .3 9, Bri .7 9; Eq .6 -, Eq .5 -; Con .6 7, Sha .6 5;
Col .7 7, TrX .5 8; Eq .3 -, AC .4 -; TrY .4 3, Sha .2 6; Bri .9 6, Col .2 8; Sol .5 2, Inv 0 -;
Eq .2 -, AC .6 -; Eq .2 -, Eq .6 -; Col .9 9, Eq .6 -; AC .8 -, Sol .2 8; Bri .1 3, Col .7 0;
Sol .4 5, AC .9 -; TrY .9 9, TrY .7 9; AC .9 -, Sol .8 3; Eq .8 -, Inv .1 -; TrY .7 9, AC .9 -
"""

IMAGENET = """
Post .4 8, Rot .6 9; Sol .6 5, AC .6 -; Eq .8 -, Eq .6 -; Post .6 7, Post .6 6; Eq .4 -, Sol .2 4;
Eq .4 -, Rot .8 8; Sol .6 3, Eq .6 -; Post .8 5, Eq 1 -; Rot .2 3, Sol .6 8; Eq .6 -, Post .4 6;
Rot .8 8, Col .4 0; Rot .4 9, Eq .6 -; Eq 0 -, Eq .8 -; Inv .6 -, Eq 1 -; Col .6 4, Con 1 8;
Rot .8 8, Col 1 2; Col .8 8, Sol .8 7; Sha .4 7, Inv .6 -; ShX .6 5, Eq 1 -; Col .4 0, Eq .6 -;
Eq .4 -, Sol .2 4; Sol .6 5, AC .6 -; Inv .6 -, Eq 1 -; Col .6 4, Con 1 8; Eq .8 -, Eq .6 -
"""

SVHN = """
ShX .9 4, Inv .2 -; ShY .9 8, Inv .7 -; Eq .6 -, Sol .6 6; Inv .9 -, Eq .6 -; Eq .6 -, Rot .9 3;
ShX .9 4, AC .8 -; ShY .9 8, Inv .4 -; ShY .9 5, Sol .2 6; Inv .9 -, AC .8 -; Eq .6 -, Rot .9 3;
ShX .9 4, Sol .3 3; ShY .8 8, Inv .7 -; Eq .9 -, TrY .6 6; Inv .9 -, Eq .6 -; Con .3 3, Rot .8 4;
Inv .8 -, TrY 0 2; ShY .7 6, Sol .4 8; Inv .6 -, Rot .8 4; ShY .3 7, TrX .9 3; ShX .1 6, Inv .6 -;
Sol .7 2, TrY .6 7; ShY .8 4, Inv .8 -; ShX .7 9, TrY .8 3; ShY .8 5, AC .7 -; ShX .7 2, Inv .1 -
"""


TABLES = {"cifar": CIFAR10, "imagenet": IMAGENET, "svhn": SVHN}


def _operation(text: str) -> SubPolicyOperation:
    name, probability, magnitude = text.split()
    return ABBREVIATIONS[name], float(probability), None if magnitude == "-" else int(magnitude)


def sub_policies(text: str) -> list[tuple[SubPolicyOperation, ...]]:
    """Return the pairs of operations that a table lists, as torchvision's ``policies`` has them."""
    return [tuple(map(_operation, pair.split(","))) for pair in text.split(";")]
