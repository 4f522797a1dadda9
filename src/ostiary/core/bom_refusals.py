"""Codes of refusals OS788 to OS798: bills of materials."""

from ostiary.core.code import Code

CHECK = "ostiary bom"

BOM_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS788",
        "no BOM that is read",
        "The file is no bill of materials in CycloneDX JSON of version 1.6 or 1.7.",
        CHECK,
        "a BOM in XML, or of an older version",
        "ask its producer for CycloneDX JSON 1.6 or 1.7",
    ),
    Code(
        "OS789",
        "BOM outside its schema",
        "The official schema of CycloneDX does not allow what stands there; another reader may take it for something "
        "else, or leave it out.",
        CHECK,
        "a tool that writes fields of its own",
        "correct what is named, or ask the producer for a valid BOM",
    ),
    Code(
        "OS790",
        "one name for two parts",
        "Two parts of the BOM have the same bom-ref, so that what refers to it may mean either.",
        CHECK,
        "none: names must be unique",
        "give each part its own bom-ref",
    ),
    Code(
        "OS791",
        "dangling reference",
        "Something in the BOM refers to a part that is not there, or to one of another kind: a data set, a piece of "
        "evidence or a dependency is named and not described.",
        CHECK,
        "a BOM that was cut from a larger one",
        "ask the producer for the whole BOM",
    ),
    Code(
        "OS792",
        "made of itself",
        "A model, data set or task depends on itself, or a model is its own ancestor.",
        CHECK,
        "none: packages may need each other, models not",
        "correct the dependencies or the pedigree",
    ),
    Code(
        "OS793",
        "BOM of other bytes",
        "The files of the model are not those that the BOM describes.",
        CHECK,
        "a model that was changed after its BOM was made",
        "make the BOM anew with `ostiary bom make`, or get the model it is about",
    ),
    Code(
        "OS794",
        "evidence out of time",
        "Evidence in the BOM has expired, or is dated in the future.",
        CHECK,
        "a clock that is wrong",
        "examine the model again and make the BOM anew",
    ),
    Code(
        "OS795",
        "BOM incomplete",
        "The BOM lacks an element that the asked-for level of completeness has.",
        CHECK,
        "an element that does not apply to this model: say so in its card",
        "give what is missing to `ostiary bom make` (a card, data sets, records)",
    ),
    Code(
        "OS796",
        "record of another model",
        "A record or a data set was given for a BOM, and it is about another model or another set.",
        "ostiary bom make",
        "a model that is read with other options (--arch, --normalize) than when it was examined",
        "give the records of this very model, or the options it was examined with",
    ),
    Code(
        "OS797",
        "hash that is none",
        "A hash in the BOM has the wrong length or can be forged (MD5, SHA-1 alone), or the root is not "
        "that of the files listed; or a file's name leads elsewhere.",
        CHECK,
        "a BOM that was edited by hand",
        "make the BOM anew from the files",
    ),
    Code(
        "OS798",
        "evidence against the model",
        "The BOM itself holds evidence against what is claimed of the model: an examination that found a backdoor, or "
        "suspects one.",
        CHECK,
        "as those of the method that found it",
        "look at the record that is named; repair the model and examine it again",
    ),
)
