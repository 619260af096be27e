"""All pictures of a network."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from pretrain.watching.attention_picture import draw_attention
from pretrain.watching.components_picture import draw_components
from pretrain.watching.matches_picture import draw_matches
from pretrain.watching.photographs import Photograph
from pretrain.watching.positives_picture import draw_positives
from pretrain.watching.subject import Subject
from pretrain.watching.undisturbed import undisturbed


def draw_pictures(subject: Subject, photographs: Sequence[Photograph]) -> dict[str, Figure]:
    """Every picture that fits the method, by name; leaves the network as it is."""
    networks = [subject.backbone] if subject.aggregation is None else [subject.backbone, subject.aggregation]
    with undisturbed(*networks):
        pictures = {
            "attention": draw_attention(subject, photographs),
            "components": draw_components(subject, photographs),
        }
        if subject.selfpatch is not None:
            pictures["positives"] = draw_positives(subject, photographs, subject.selfpatch)
        if subject.matching_views is not None:
            pictures["matches"] = draw_matches(subject, photographs, subject.matching_views)
    return pictures
