"""The smallest trigger of the form: a few spatial frequencies that are added to every image."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.records import FormName
from ostiary.scan.form_search import FormSearch
from ostiary.scan.forms import Form, Frequencies


@dataclass(frozen=True, kw_only=True, slots=True)
class FrequencyTrigger(FormSearch):
    """Recover the fewest spatial frequencies that, added to images, send them to a class, for every class.

    Source: none; the search is that of Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, over
    another form of trigger than patches. See `FormSearch` and `forms.Frequencies`.
    """

    card: ClassVar[Card] = Card(
        id="scan.frequency-trigger",
        summary="recovers the fewest spatial frequencies to add to every image towards every class",
        paper="none; the search of Wang et al. 2019, IEEE S&P, over another form of trigger",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="steps x classes x batch forward and backward passes to the input",
        code="OS203",
        version="2",
        limits=(
            Limit(measure="size_ratio", low=4.0),
            Limit(measure="flip_held_out", low=0.75),
            Limit(measure="size", high=5.0),  # models trained against adversarial examples need more towards all
        ),
        size="size",
        families=("frequency",),
        blind_spots=(
            "a weak pattern towards a class that takes many frequencies by nature, without reference models",
            "patches and warps; triggers that differ from image to image",
            "all-to-all and source-specific backdoors",
        ),
        marks=frozenset({"mechanism"}),
    )
    form: ClassVar[FormName] = "frequencies"
    searched: ClassVar[Form] = Frequencies()
    # On develop models a target leads after 8 rounds.
    drops: ClassVar[tuple[tuple[int, int], ...]] = ((8, 4), (16, 2))

    initial_cost: Annotated[float, Field(gt=0)] = 1e-2
    success: Annotated[float, Field(gt=0, le=1)] = 0.9
