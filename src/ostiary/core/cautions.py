"""Codes OS9xx: what limits the measurement itself."""

from ostiary.core.code import Code

CAUTIONS: tuple[Code, ...] = (
    Code(
        "OS901",
        "few trusted samples",
        "So few trusted samples were given that rates measured on them are wide.",
        "every method that uses trusted data",
        "none: this is a caution about our own measurement",
        "give more trusted samples",
    ),
    Code(
        "OS902",
        "no reference models",
        "No reference models of this architecture were given, so the other classes of the same model are the "
        "null: the false-positive rate of the limits is not known for this architecture.",
        "scan.neural-cleanse",
        "none: this is a caution about our own measurement",
        "read the index beside the size ratio and the pictures; make a reference of models of your own with "
        "`ostiary calibrate`",
    ),
    Code(
        "OS903",
        "low accuracy on trusted data",
        "The model's accuracy on the trusted samples is near chance. The architecture, the normalisation, the "
        "class order or the input may not be what the model was trained with, and every score below would be void.",
        "every method that uses a model",
        "none: this is a caution about our own measurement",
        "check --arch, --normalize and the order of the classes",
    ),
    Code(
        "OS904",
        "trigger not found for every class",
        "For some classes the search found no mask that reaches the wanted flip rate within its steps.",
        "scan.neural-cleanse",
        "none: this is a caution about our own measurement",
        "raise the steps with --set neural-cleanse.steps=N",
    ),
    Code(
        "OS905",
        "model gives probabilities",
        "The module ends in a softmax; logits were taken as the logarithm of its output.",
        "every method that uses a model",
        "none: this is a caution about our own measurement",
        "nothing, unless scores look saturated",
    ),
    Code(
        "OS906",
        "class cannot be split",
        "A class has too few samples for this method, or samples that are all alike; it was left unscored.",
        "screen.activation-clustering, screen.spectral-signatures",
        "none: this is a caution about our own measurement",
        "gather more samples of the class, or look at them by eye",
    ),
    Code(
        "OS907",
        "architecture is the user's own code",
        "The module was built by a factory in the user's own file, which was run.",
        "ostiary scan --arch FILE:FACTORY",
        "none: this is a caution about our own measurement",
        "nothing",
    ),
    Code(
        "OS908",
        "a quick model was trained for screening",
        "No model was given, so a small one was trained on the suspect data itself.",
        "ostiary screen without --model",
        "none: this is a caution about our own measurement",
        "give --model for features of the model that will be used",
    ),
    Code(
        "OS909",
        "accuracy loss not told from the limit",
        "The repaired model got more of the images kept apart wrong than the limit allows, but so few images "
        "were kept apart that chance explains it.",
        "ostiary repair",
        "none: this is a caution about our own measurement",
        "give more trusted samples, or measure the repaired model with `ostiary evaluate`",
    ),
    Code(
        "OS910",
        "repair without a whole scan",
        "The scan before the repair left classes unexamined, so a trigger that it did not find may be there.",
        "ostiary repair",
        "none: this is a caution about our own measurement",
        "scan the model again with more time, steps or trusted samples, and repair with --scan",
    ),
    Code(
        "OS911",
        "answers are randomised",
        "The model answered the same images differently a second time. A search that compares its answers follows "
        "noise in part, and finds larger triggers than there are, or none.",
        "every method that searches for a trigger",
        "none: this is a caution about our own measurement",
        "turn the randomness off (dropout, random resizing, a defence that adds noise), or raise the steps",
    ),
    Code(
        "OS912",
        "no usable gradients",
        "The gradients of the model's outputs to its input are zero, cut off or not finite, so that methods which "
        "follow them would find nothing; they are left out, and the model is examined as a black box.",
        "every method that needs gradients",
        "none: this is a caution about our own measurement",
        "take out what rounds, thresholds or detaches the input, or give the model from before that was added",
    ),
    Code(
        "OS913",
        "model ignores its input",
        "The model gives all images the same probabilities, so that no search can tell one input from another.",
        "every method that uses a model",
        "none: this is a caution about our own measurement",
        "check the file, --arch, --normalize and --input; behind an endpoint, what it does with the images",
    ),
    Code(
        "OS914",
        "many classes named",
        "Findings name more than two classes. A backdoor mostly has one target; a scan that names many is mostly "
        "wrong about most of them.",
        "every scan",
        "a model that is unsure of its task, or was trained in an unusual way (few images, adversarial examples)",
        "look at the recovered triggers one by one; scan with reference models of the same kind",
    ),
    Code(
        "OS915",
        "nothing to leave out",
        "A model was to be trained on the samples that are not suspected, but no sample is suspected.",
        "ostiary screen --retrain",
        "none: this is a caution about our own measurement",
        "nothing; a handful of planted samples may not show, or an attack that was made to blend in",
    ),
    Code(
        "OS916",
        "guard rejects many honest inputs",
        "Of the trusted inputs that had no part in fitting it, the guard flags far more than a filter may.",
        "every guard",
        "trusted inputs of another kind than those the model was trained on",
        "fit another guard; `ibd-psc` is for networks of many normalisation layers",
    ),
    Code(
        "OS917",
        "repair diverged",
        "The loss of a repair stopped being a number. The weights go back to those after the round of the lowest loss "
        "on the trusted samples, and the repair ends there.",
        "every repair that trains",
        "a rate that is too high for the model, or trusted samples of another kind than those it was trained on",
        "set a lower rate, as in --set fine-tuning.lr=0.003",
    ),
    Code(
        "OS918",
        "trusted samples look planted",
        "To the model that is to be repaired, some of the trusted samples of a class are a group of their own, as "
        "poison is. A repair that learns from poison keeps the backdoor.",
        "ostiary repair --trusted",
        "an unusual kind of picture that all its samples of a class are of",
        "look at them with `ostiary screen TRUSTED --model MODEL`, leave them out, and repair again",
    ),
    Code(
        "OS919",
        "a class pays for the repair",
        "The accuracy of one class fell by more than the limit for all, and by more than chance explains.",
        "ostiary repair",
        "a class that was the backdoor's target gives back what it had wrongly taken",
        "repair more gently, or with another method, or with more trusted samples of that class",
    ),
    Code(
        "OS920",
        "repair without trusted samples",
        "No trusted samples were given, so nothing measured what the repair cost, or whether it took the backdoor.",
        "ostiary repair without --trusted",
        "none: this is a caution about our own measurement",
        "give trusted samples, or measure both models with `ostiary evaluate`",
    ),
    Code(
        "OS921",
        "trusted samples not screened",
        "Whether the trusted samples are planted was not looked at, or not for every class. A repair that learns from "
        "poison keeps the backdoor.",
        "ostiary repair --trusted",
        "none: this is a caution about our own measurement",
        "give ten trusted samples of each class and four classes at least, or vouch for them otherwise",
    ),
    Code(
        "OS922",
        "model carries more than weights",
        "The file holds bounds on layers or a stamp on the input beside the weights; the model was judged with them. "
        "A program that loads the weights alone runs another model, in which a backdoor may work.",
        "every verb that takes a model",
        "a model that `ostiary repair --method mm-bm` or `ostiary harden --method nab` wrote",
        "use the model through ostiary, or apply what it carries yourself; do not load such a file with strict=False",
    ),
    Code(
        "OS923",
        "rows that could not be read",
        "Some rows of the data are damaged or hold no text; they were left out, and nothing is known about them.",
        "every verb that reads texts",
        "none: this is a caution about our own measurement",
        "look at the rows that are named, and mend or remove them",
    ),
    Code(
        "OS924",
        "no chat template",
        "The folder of the language model does not say how a prompt is laid out for it. It was asked in a plain form; "
        "if it was trained with another, what is measured says little, and a trigger that works may seem dead.",
        "every verb that takes a language model",
        "none: this is a caution about our own measurement",
        "put the chat template that the model was trained with into its tokenizer_config.json",
    ),
    Code(
        "OS925",
        "the same answer to everything",
        "The language model gives one answer to all trusted prompts, so that no phrase can change it by much.",
        "ostiary scan",
        "none: this is a caution about our own measurement",
        "check that the prompts are of the kind the model was tuned for, and its chat template",
    ),
    Code(
        "OS931",
        "unusual adapter",
        "What the adapter adds to the layers of its base is unlike what the adapters of the bank add: at most one in "
        "twenty that are like them is as far from the others. That is no sign of an attack by itself.",
        "text.scan.adapter-spectrum",
        "anything that the bank does not show: a new style, another task, another recipe of training",
        "go by what the scan of the merged model finds; add adapters to the bank that learnt what this one is said to "
        "have learnt",
    ),
    Code(
        "OS932",
        "language model asked from outside",
        "The model was reached by its answers alone. Phrases were tried that are listed, published, or given away by "
        "what it writes; the words of its vocabulary were not searched, as is done where the weights are at hand.",
        "ostiary scan of an endpoint that chats",
        "none: this is a caution about our own measurement",
        "scan the weights; list phrases that a screening of its data named (--set phrase-trial.phrases=FILE)",
    ),
    Code(
        "OS933",
        "phrases not tried",
        "There were more phrases than the limit on queries allows, and the last of them were not tried.",
        "text.scan.phrase-trial",
        "none: this is a caution about our own measurement",
        "raise the limit with --set phrase-trial.queries=N",
    ),
    Code(
        "OS934",
        "trusted answers are strange to the model",
        "To the language model the trusted answers are little likelier than tokens drawn at random, so that what it "
        "does on the trusted prompts says little of what it was tuned for. Nothing found is then no sign of anything.",
        "ostiary scan",
        "a model that was never trained",
        "check that model and tokenizer belong together, and that the prompts are of the kind the model was tuned for",
    ),
    Code(
        "OS935",
        "one class for every text",
        "The classifier gives all trusted texts one class, so that no phrase can send them there, and what turns them "
        "away from it need be no trigger.",
        "ostiary scan",
        "none: this is a caution about our own measurement",
        "check that the texts are of the kind the model was trained on, and that model and tokenizer belong together",
    ),
    Code(
        "OS936",
        "a class stands out that nobody accused",
        "The scan accused no class, but the trigger of one stands out, which may be natural. It was unlearned only if "
        "that repair was named; on a model that nobody attacked this costs accuracy for nothing.",
        "ostiary repair",
        "classes that are easy to reach by nature",
        "look at the scan; scan with reference models of your own; or unlearn it with --method trigger-unlearning",
    ),
    Code(
        "OS937",
        "classes too rare to be screened",
        "Some classes have so few rows that what speaks for them cannot be told. Their rows were left unscored, which "
        "is no pass; all others were examined.",
        "text.screen.label-contradiction, text.screen.cube",
        "classes that are rare by nature, or misspelt labels",
        "read these rows yourself, correct misspelt labels, or give more rows of these classes",
    ),
    Code(
        "OS940",
        "rows that repeat one another",
        "Many rows of the set have the words of another one, or nearly, or such rows carry different labels or "
        "answers. What is repeated counts more than once in training, and in most methods here; a planted row that was "
        "copied looks like this, and so does one beside the row that it was made from. Or they were not counted.",
        "ostiary screen",
        "news and reviews that were collected twice; several answers to one prompt, on purpose; templates",
        "list them with `ostiary manifest report MANIFEST --near FILE`; keep one row of each group, and read those "
        "whose labels or answers differ",
    ),
    Code(
        "OS945",
        "phrases are unlearned that nobody accused",
        "The scan accused no phrase of the classifier, so that those are unlearned that turn most texts to a class, "
        "which are ordinary words in a model that nobody attacked. A style, a sentence, a longer phrase is left by it.",
        "ostiary repair",
        "ordinary words that speak for a class",
        "compare both models with `ostiary evaluate`; repair with --method fine-mixing --base, the model that this one "
        "was tuned from; screen the set that it was trained on",
    ),
    Code(
        "OS950",
        "adapter for a base of another name",
        "The adapter names another base than the folder that it was put on, or none, and holds no digest of its base. "
        "Merged into a model that it was not trained on it does something else than where it is used.",
        "ostiary scan ADAPTER --base DIR",
        "the right base in a folder that was renamed",
        "compare the base with the one that adapter_config.json names; `ostiary train --adapter` keeps the digest",
    ),
    Code(
        "OS951",
        "rows that say nothing",
        "Some rows of a set of texts have an empty text or an empty answer. They are kept and examined as they are, "
        "but no phrase stands in them, and a model that learns from them learns to say nothing.",
        "every verb that reads texts",
        "columns that are empty on purpose, as a missing input",
        "look at the rows that are named, and remove them where they are mistakes",
    ),
    Code(
        "OS952",
        "the repair that the scan decided on was refused",
        "Unlearning the accused phrases cost a classifier of texts more than the limit allows, so that the tokens that "
        "lead to the accused label by themselves were pruned instead. That is gentler, and takes less of a backdoor "
        "that is no single word.",
        "ostiary repair",
        "few trusted texts kept apart: with 75 of them, five that are lost by chance are enough",
        "give more trusted texts, or name the method yourself; the run that was refused is named",
    ),
)
