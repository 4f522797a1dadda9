"""Codes of refusals OS775 to OS787: who scanned a model, what it was built from, and what it stands on."""

from ostiary.core.code import Code

ADMIT = "ostiary admit, ostiary.load"

ATTESTATION_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS775",
        "no scan",
        "The policy asks for a scan of these very bytes, and no statement about one is at hand.",
        ADMIT,
        "a statement that lies elsewhere: it is looked for beside the model, under its name and `.scan`",
        "`ostiary scan`, then `ostiary attest` with the key of somebody who is trusted as scanner",
    ),
    Code(
        "OS776",
        "scan of another model",
        "The statement is about other bytes than these, under this name or another.",
        ADMIT,
        "a model that was converted, repaired or saved again since",
        "scan the model as it is now",
    ),
    Code(
        "OS777",
        "scan out of time",
        "The statement has expired, is older than the policy takes, or is dated in the future.",
        ADMIT,
        "a clock that is wrong; a scan that nobody renewed",
        "scan again: methods get better, and what they look for grows",
    ),
    Code(
        "OS778",
        "scan found something",
        "The scan that is stated accuses this model.",
        ADMIT,
        "natural classes that stand out; docs/scan.md tells how often that was measured",
        "read the findings; `ostiary repair`, or another model",
    ),
    Code(
        "OS779",
        "scan without a result",
        "The scan that is stated did not examine every class, or none of its methods finished: it says nothing.",
        ADMIT,
        "a time limit that was too short; a model that gives no gradients",
        "scan again with more time, or with methods that work on this model",
    ),
    Code(
        "OS780",
        "scanned by its own signer",
        "Whoever signed the model also stated the scan, and the policy wants somebody else to.",
        ADMIT,
        "one key in two roles",
        "let somebody else scan it, with a key of their own",
    ),
    Code(
        "OS781",
        "scanner too old",
        "The scan was made by an older version of the scanner than the policy takes.",
        ADMIT,
        "none",
        "scan again with the version that the policy names",
    ),
    Code(
        "OS782",
        "kinds of backdoors not looked for",
        "The policy names kinds of backdoors that no method of this scan looked for in every class.",
        ADMIT,
        "methods that were skipped: the record says why",
        "scan again with the methods that look for them (`ostiary methods --kind scan`)",
    ),
    Code(
        "OS783",
        "scans contradict",
        "One statement that still holds accuses the model, another passes it. The accusation stands until its own "
        "signer takes it back by a newer scan with the same methods at least.",
        ADMIT,
        "an accusation that was wrong, as one in a hundred is",
        "ask both scanners; whoever accused it scans again",
    ),
    Code(
        "OS784",
        "no bill of materials",
        "The policy asks for a signed bill of materials, and none is at hand.",
        ADMIT,
        "a file that lies elsewhere: it is looked for beside the model, under its name and `.bom`",
        "`ostiary bom make`, then `ostiary attest --bom`",
    ),
    Code(
        "OS785",
        "origin unknown",
        "The policy asks what the model learnt from, and no trusted statement in the index is about it.",
        ADMIT,
        "a statement that nobody added to this index",
        "`ostiary manifest trained`, then `ostiary manifest index`",
    ),
    Code(
        "OS787",
        "part not admitted",
        "The base model or an adapter is not admitted by the same policy, or is not the one that is named.",
        ADMIT,
        "a base that was signed under another name",
        "`ostiary admit` on that part alone says why",
    ),
)
