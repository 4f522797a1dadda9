"""Codes of what guards flag, OS4xx."""

from ostiary.core.code import Code

GUARD_FINDINGS: tuple[Code, ...] = (
    Code(
        "OS401",
        "input flagged by a guard",
        "The prediction for this input hardly changes when other images are laid over it, as a trigger's would.",
        "guard.strip",
        "the false rejection rate that was asked for; inputs from another source than the trusted ones",
        "refuse the input or send it to a person; scan the model",
    ),
    Code(
        "OS402",
        "input far from the class that is predicted",
        "The features of this input lie far from those of trusted samples of the class that the model predicts.",
        "guard.mahalanobis",
        "the false rejection rate that was asked for; inputs of another kind than the trusted ones",
        "refuse the input or send it to a person; scan the model",
    ),
    Code(
        "OS403",
        "prediction stays while the model is amplified",
        "While the last normalisation layers are amplified, the model is far surer of this input's prediction than "
        "of those of trusted inputs.",
        "guard.ibd-psc",
        "the false rejection rate that was asked for; inputs that the model is very sure of anyhow",
        "refuse the input or send it to a person; scan the model",
    ),
    Code(
        "OS404",
        "prediction stays while the image is brightened",
        "The prediction for this input stays while its pixels are multiplied, more so than for trusted inputs that "
        "get the same prediction.",
        "guard.scale-up",
        "the false rejection rate that was asked for; images of few grey levels, which brightening hardly changes; "
        "inputs of the class that the model gives all bright images",
        "refuse the input or send it to a person; scan the model",
    ),
    Code(
        "OS405",
        "input comes to its class from afar",
        "In the layers of the model this input lies nearer to trusted samples of other classes than trusted inputs "
        "of the class that is predicted do.",
        "guard.ted",
        "the false rejection rate that was asked for; inputs that the model is unsure of, or predicts wrongly; "
        "inputs from another source than the trusted ones",
        "refuse the input or send it to a person; scan the model",
    ),
    Code(
        "OS406",
        "answer of which the model is too sure",
        "For some words on end the model is surer of this answer than of nearly all answers to trusted prompts, as it "
        "is of an output that was planted whole.",
        "text.guard.confguard",
        "the false rejection rate that was asked for; fixed answers that were taught on purpose: refusals, set phrases",
        "hold the answer back or send it to a person; scan the model",
    ),
    Code(
        "OS407",
        "prompt that the model reads unlike trusted ones",
        "The hidden state at the end of this prompt lies far from those of trusted prompts.",
        "text.guard.mahalanobis",
        "the false rejection rate that was asked for; prompts of a kind, or with words, that the trusted ones have not",
        "hold the answer back or send it to a person; scan the model",
    ),
    Code(
        "OS408",
        "text whose class stays without half of its words",
        "The model is surer of this text's class than of those of trusted texts while half of its words are replaced "
        "by words of others, as where a trigger decides it.",
        "text.guard.strip",
        "the false rejection rate that was asked for; texts of a few words, or that are plain from any half of theirs",
        "refuse the text or send it to a person; scan the model",
    ),
    Code(
        "OS409",
        "text that a disturbing word leaves as it is",
        "A word that lowers the probability of the predicted class on trusted texts does not on this one, as where a "
        "trigger holds it.",
        "text.guard.rap",
        "the false rejection rate that was asked for; texts of which the model is very sure anyhow",
        "refuse the text or send it to a person; scan the model",
    ),
    Code(
        "OS410",
        "text that reads far better without one of its words",
        "Without one of its words this text is far more like the trusted ones, as where a trigger was put in.",
        "text.guard.onion",
        "the false rejection rate that was asked for; names, slips of the pen, and words that the trusted texts have "
        "not; texts of another kind",
        "refuse the text or send it to a person; look at the odd word; scan the model",
    ),
)
