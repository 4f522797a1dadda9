"""The smallest trigger of the form: one smooth warp of every image."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ostiary.core.card import Card, Limit, Needs
from ostiary.core.records import FormName
from ostiary.scan.form_search import FormSearch
from ostiary.scan.forms import Form, Warp


@dataclass(frozen=True, kw_only=True, slots=True)
class WarpTrigger(FormSearch):
    """Recover the smallest smooth warp that sends images to a class, for every class.

    Source: none; the search is that of Wang et al. 2019, Neural Cleanse (IEEE S&P), sec. IV, over
    another form of trigger than patches. See `FormSearch` and `forms.Warp`.
    """

    card: ClassVar[Card] = Card(
        id="scan.warp-trigger",
        summary="recovers one smooth warp of every image towards every class and compares their sizes",
        paper="none; the search of Wang et al. 2019, IEEE S&P, over another form of trigger",
        needs=Needs(access="gradients", modality="images", trusted_per_class=4),
        cost="steps x classes x batch forward and backward passes to the input",
        code="OS204",
        version="5",
        limits=(
            Limit(measure="size_ratio", low=3.0, kept=True),  # mixup makes warps towards one class easy
            Limit(measure="flip_held_out", low=0.75),
        ),
        size="size",
        families=("warp",),
        blind_spots=(
            "triggers that move nothing: patches, blends, colours",
            "warps that are finer than the grid; all-to-all and source-specific backdoors",
        ),
        marks=frozenset({"mechanism"}),
    )
    form: ClassVar[FormName] = "warp"
    searched: ClassVar[Form] = Warp()
    # On develop models a target leads after 6 rounds.
    drops: ClassVar[tuple[tuple[int, int], ...]] = ((8, 4), (16, 2))

    steps: Annotated[int, Field(gt=0)] = 240
    success: Annotated[float, Field(gt=0, le=1)] = 0.85
