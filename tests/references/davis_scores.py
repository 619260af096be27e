"""J and F as the official evaluation computes them, in plain steps: whole frames, all masks of a sequence in memory at once.

Written from the description of davisvideochallenge/davis2017-evaluation to be slow and obvious.
"""

import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.morphology import disk


def read_masks(paths: list[Path]) -> np.ndarray:
    first = np.array(Image.open(paths[0]))
    masks = np.zeros((len(paths), *first.shape))
    for index, path in enumerate(paths):
        masks[index] = np.array(Image.open(path))
    return masks


def separate(masks: np.ndarray, num_objects: int) -> np.ndarray:
    ids = np.ones((num_objects, *masks.shape)) * np.arange(1, num_objects + 1)[:, None, None, None]
    return (ids == masks[None]) > 0


def region_similarity(annotation: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """J of each frame, [..., H, W] -> [...]; no pixel is void in the semi-supervised evaluation, yet the official code masks them."""
    annotation, prediction = annotation.astype(bool), prediction.astype(bool)
    valid = np.logical_not(np.zeros_like(prediction))
    intersection = np.sum((prediction & annotation) & valid, axis=(-2, -1))
    union = np.sum((prediction | annotation) & valid, axis=(-2, -1))
    return np.where(union == 0, 1.0, intersection / np.maximum(union, 1))


def boundary(mask: np.ndarray) -> np.ndarray:
    mask = mask.astype(bool)
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    result = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    result[-1] = mask[-1] ^ right[-1]
    result[:, -1] = mask[:, -1] ^ below[:, -1]
    result[-1, -1] = False
    return result


def boundary_measure(annotation: np.ndarray, prediction: np.ndarray) -> float:
    tolerance = math.ceil(0.008 * np.linalg.norm(annotation.shape))
    void = np.zeros_like(prediction, dtype=bool)
    found = boundary(prediction * np.logical_not(void))
    wanted = boundary(annotation * np.logical_not(void))
    element = disk(tolerance).astype(np.uint8)
    near_wanted = cv2.dilate(wanted.astype(np.uint8), element)
    near_found = cv2.dilate(found.astype(np.uint8), element)
    num_wanted, num_found = np.sum(wanted), np.sum(found)
    if num_found == 0 and num_wanted > 0:
        precision, recall = 1.0, 0.0
    elif num_found > 0 and num_wanted == 0:
        precision, recall = 0.0, 1.0
    elif num_found == 0 and num_wanted == 0:
        precision, recall = 1.0, 1.0
    else:
        precision = np.sum(found * near_wanted) / float(num_found)
        recall = np.sum(wanted * near_found) / float(num_wanted)
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def measure_sequence(annotations: Path, predictions: Path) -> tuple[np.ndarray, np.ndarray]:
    """J and F [objects, scored frames]."""
    paths = sorted(annotations.glob("*.png"))
    truth = read_masks(paths)
    truth[truth == 255] = 0
    truth = separate(truth, int(truth[0].max()))[:, 1:-1]
    found = read_masks([predictions / path.name for path in paths[1:-1]])
    found = separate(found, int(found.max()))
    padding = np.zeros((len(truth) - len(found), *found.shape[1:]))
    found = np.concatenate([found, padding])
    region, contour = np.zeros(truth.shape[:2]), np.zeros(truth.shape[:2])
    for number in range(len(truth)):
        region[number] = region_similarity(truth[number], found[number])
        for index in range(truth.shape[1]):
            contour[number, index] = boundary_measure(truth[number, index], found[number, index])
    return region, contour
