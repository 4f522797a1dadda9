"""Codes of gates, OS735 to OS739: what stands in the way of a model on its way into a pipeline."""

from ostiary.core.code import Code

GATE_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS735",
        "no commit was named",
        "A branch, a tag or a short hash was given where a commit of 40 hex digits is asked for, or the snapshot at "
        "hand is of another one: what a branch or a tag stands for can change at any time.",
        "ostiary.provenance.hub",
        "none known",
        "look up the commit that was reviewed, and give all 40 digits of it",
    ),
    Code(
        "OS736",
        "not all was examined",
        "The run examined less than was asked of it: a method failed or was stopped, a class was left out, or the "
        "decision is no pass and no refusal. That nothing else was found says nothing.",
        "reports in SARIF and JUnit",
        "a time limit that was too short for this machine",
        "read why in the record; give more time, or what the method says it lacks, and run it again",
    ),
    Code(
        "OS737",
        "repair refused",
        "The repaired model lost more accuracy than was allowed, and was not written.",
        "reports of ostiary repair in SARIF and JUnit",
        "a limit that is tighter than the trusted samples can tell",
        "give more trusted samples, a gentler method, or a larger --max-loss",
    ),
)
