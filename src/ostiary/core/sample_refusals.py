"""Codes of refusals OS751 to OS759, OS767 and OS768: what a data set holds, and what learnt from it."""

from ostiary.core.code import Code

MANIFEST, LINEAGE = "ostiary manifest", "ostiary trace, ostiary impact"

SAMPLE_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS751",
        "no data manifest",
        "The file is no manifest of a data set, or it is truncated, damaged or not written in the one form.",
        MANIFEST,
        "a manifest of a newer version of Ostiary",
        "get the manifest again, or make it anew",
    ),
    Code(
        "OS752",
        "samples out of order",
        "The manifest names a sample twice or out of order, so that readers could take it for two different sets.",
        MANIFEST,
        "none known",
        "ask its owner for the manifest as `ostiary manifest make` wrote it",
    ),
    Code(
        "OS753",
        "manifest altered",
        "The root at the end of the manifest is not that of the samples it names.",
        MANIFEST,
        "a file that was damaged on its way",
        "get the manifest again; do not use the data before it is whole",
    ),
    Code(
        "OS754",
        "not the set that was stated",
        "A manifest is not the one that its owner signed, nobody trusted signed one for this set, or a file does not "
        "have the SHA-256 that the description of its set states.",
        MANIFEST,
        "a set that was made again under the same name",
        "ask the owner for the statement that belongs to this manifest",
    ),
    Code(
        "OS755",
        "sample altered",
        "A sample does not have the content that the manifest states for its id.",
        MANIFEST,
        "images that were encoded anew: a manifest states bytes, not pixels",
        "look at the sample; get the data again from their owner",
    ),
    Code(
        "OS756",
        "sample missing or added",
        "The set holds a sample that the manifest does not name, or lacks one that it names.",
        MANIFEST,
        "samples that were renumbered, or another part of the set",
        "make sure that it is the same part; do not train on samples that nobody stated",
    ),
    Code(
        "OS757",
        "sample relabelled",
        "A sample carries another label than the manifest states.",
        MANIFEST,
        "classes that were renamed",
        "look at the sample; `ostiary screen` finds labels that do not fit",
    ),
    Code(
        "OS758",
        "sample from elsewhere",
        "A sample is said to come from another source than the manifest states.",
        MANIFEST,
        "a source that was renamed",
        "ask the owner of the set",
    ),
    Code(
        "OS759",
        "proof does not hold",
        "The file is no proof that a sample is in a set, or its path does not lead to the root of that set.",
        MANIFEST,
        "a proof for an earlier version of the set",
        "ask for a proof of the set that was signed",
    ),
    Code(
        "OS767",
        "statements contradict",
        "Trusted statements say different things of one data set or one model; not all of them can be true.",
        LINEAGE,
        "a statement that was corrected by a second one, or a version number that was used twice",
        "ask the signers which one holds, and remove the other from the index; until then all are reckoned with",
    ),
    Code(
        "OS768",
        "made of what is revoked",
        "A model was trained on a set or a source, or began with a model, that the trust store revokes; or it cannot "
        "be told, since nothing here says what one of its sets holds.",
        LINEAGE,
        "none: somebody put it there",
        "scan the model, and train it again without the samples in question",
    ),
)
