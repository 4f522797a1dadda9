"""The smallest trigger of the form: one change of the colours of every image."""

from dataclasses import dataclass
from typing import ClassVar

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.records import FormName
from ostiary.scan.form_search import FormSearch
from ostiary.scan.forms import Colour, Form


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourTrigger(FormSearch):
    """Recover the smallest change of colours that sends images to a class, for every class.

    Source: none; the search is that of Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, over
    another form of trigger than patches. See `FormSearch` and `forms.Colour`.
    """

    card: ClassVar[Card] = Card(
        id="scan.colour-trigger",
        summary="recovers one change of the colours of every image towards every class and compares their sizes",
        paper="none; the search of Wang et al. 2019, IEEE S&P, over another form of trigger",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="steps x classes x batch forward and backward passes to the input",
        code="OS205",
        limits=(Limit(measure="size_ratio", low=3.0), Limit(measure="flip_held_out", low=0.75)),
        blind_spots=("triggers that differ from image to image", "all-to-all and source-specific backdoors"),
    )
    form: ClassVar[FormName] = "colour"
    searched: ClassVar[Form] = Colour()
