"""The smallest trigger of the form: one change that is added to every image."""

from dataclasses import dataclass
from typing import ClassVar

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.records import FormName
from ostiary.scan.form_search import FormSearch
from ostiary.scan.forms import Addition, Form


@dataclass(frozen=True, kw_only=True, slots=True)
class AdditiveTrigger(FormSearch):
    """Recover the smallest change that, added to images, sends them to a class, for every class.

    Source: none; the search is that of Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, over
    another form of trigger than patches. See `FormSearch` and `forms.Addition`.
    """

    card: ClassVar[Card] = Card(
        id="scan.additive-trigger",
        summary="recovers one change that is added to every image towards every class and compares their sizes",
        paper="none; the search of Wang et al. 2019, IEEE S&P, over another form of trigger",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="steps x classes x batch forward and backward passes to the input",
        code="OS203",
        version="2",
        limits=(Limit(measure="size_ratio", low=2.0), Limit(measure="flip_held_out", low=0.75)),
        blind_spots=(
            "strong patterns such as sinusoids: every class is reached by less",
            "patches and warps; triggers that differ from image to image",
            "all-to-all and source-specific backdoors",
        ),
        marks=frozenset({"mechanism"}),
    )
    form: ClassVar[FormName] = "addition"
    searched: ClassVar[Form] = Addition()
