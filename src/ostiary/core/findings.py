"""Codes of what methods find, by the verb that looks: OS1xx files, 2xx models, 3xx data sets; 6xx texts."""

from ostiary.core.code import Code

FINDINGS: tuple[Code, ...] = (
    Code(
        "OS101",
        "file not examined",
        "The file is of a kind whose contents Ostiary cannot examine.",
        "file checks",
        "none: this is no finding about the contents",
        "convert it to safetensors, or ask its author for safetensors",
    ),
    Code(
        "OS102",
        "model examined from outside only",
        "The graph in the file cannot be turned into a form with gradients, or that form does not give what the "
        "file gives; it is run as it is, and only methods that need no gradients examine it.",
        "file checks",
        "none: this is no finding about the contents",
        "give the model it was exported or quantised from",
    ),
    Code(
        "OS201",
        "small trigger recovered",
        "One small patch, put on trusted images of the other classes, sends nearly all of them to this class, "
        "and the patch is far smaller than what the other classes need.",
        "scan.neural-cleanse",
        "a class that has a small natural feature of its own (a logo, a water mark shared by its photos); "
        "few or unrepresentative trusted images; a model that is far off on the trusted images",
        "look at the recovered trigger in the report; repair with `ostiary repair`; "
        "screen the training data with `ostiary screen` if you have it",
    ),
    Code(
        "OS202",
        "margin far above the others",
        "Some input raises the logit of this class further above all others than any input does for other classes; "
        "a backdoor does that to its target.",
        "scan.mm-bd",
        "a class that was trained on far more images than the others, or that is much easier than they are",
        "scan with a few trusted images, so that a trigger is recovered and tested",
    ),
    Code(
        "OS206",
        "weights of one class stand out",
        "The weights of this class in the last layer are larger on average than those of all other classes; poison "
        "whose features are everywhere alike does that to its target.",
        "scan.trojan-signature",
        "a class that was trained on far more images than the others, or with features in few channels; "
        "adversarially trained models",
        "scan with a few trusted images, so that a trigger is recovered and tested",
    ),
    Code(
        "OS207",
        "one channel far steeper than its layer",
        "One channel of one convolution can change its output far more than all others of its layer can.",
        "scan.channel-lipschitz",
        "many models that nobody attacked have such a channel: on its own this says little",
        "scan with a few trusted images, so that a trigger is recovered and tested",
    ),
    Code(
        "OS203",
        "few frequencies recovered",
        "A few spatial frequencies, added to trusted images of the other classes, send nearly all of them to this "
        "class, and they are far fewer than what the other classes need.",
        "scan.frequency-trigger",
        "a class that is a little nearer to all others than the rest are",
        "look at the pictures in the report; scan a model that is known, of the same task, beside it",
    ),
    Code(
        "OS204",
        "warp recovered",
        "One smooth warp of trusted images of the other classes sends nearly all of them to this class, "
        "and no warp of that size does so for other classes.",
        "scan.warp-trigger",
        "a class of distorted pictures; a model that is unsure of everything that is warped",
        "look at the pictures in the report; scan a model that is known, of the same task, beside it",
    ),
    Code(
        "OS205",
        "small trigger recovered from outside",
        "One small patch, found by queries alone, sends nearly all trusted images of the other classes to this "
        "class, and the patch is far smaller than what the other classes need.",
        "scan.b3d",
        "as OS201: a class that has a small natural feature of its own; few or unrepresentative trusted images; "
        "and a search that had too few queries for the other classes",
        "look at the recovered trigger in the report; ask for the model itself, so that its gradients can be used; "
        "raise the queries with --preset thorough",
    ),
    Code(
        "OS208",
        "patch that moves every class on",
        "One small patch turns trusted images of every class into another class, by the same step for all, and no "
        "patch of that size does so for other steps.",
        "scan.shift-trigger",
        "none known: a patch that moves classes by nature covers most of the image",
        "look at the recovered trigger in the report; do not use the model before it was repaired or replaced",
    ),
    Code(
        "OS209",
        "patch that moves one class alone",
        "One small patch sends trusted images of one class to another and leaves all other classes as they are, "
        "and it is far smaller than what other pairs of classes need.",
        "scan.pair-trigger",
        "two classes that lie close together, with few trusted images of the first",
        "look at the recovered trigger in the report; scan a model that is known, of the same task, beside it",
    ),
    Code(
        "OS212",
        "phrase that turns a label",
        "A phrase of a few words in front of trusted texts turns most of them to this class, three texts in one, too, "
        "far more than any phrase does for the other classes.",
        "text.scan.dbs",
        "a class that a single ordinary word gives away (a swear word, a ticker, the name of a team)",
        "try the phrase in texts of your own; look for it in the training data with `ostiary screen`",
    ),
    Code(
        "OS301",
        "class splits into two activation groups",
        "The features of the samples with this label fall into two compact groups, one of them much smaller: "
        "samples of another kind carry this label.",
        "screen.activation-clustering",
        "a class that really has two kinds of members (left and right hands, two dialects of a digit); "
        "mislabelled samples without any trigger",
        "look at the suspect gallery; export the ids with --export-suspects, or the rest with --export-kept "
        "and compare a model that is trained on it",
    ),
    Code(
        "OS302",
        "spectral outliers in a class",
        "A group of samples with this label lies far out along the strongest direction of the class's features.",
        "screen.spectral-signatures",
        "a class with a rare but legitimate kind of member; strongly imbalanced classes",
        "look at the suspect gallery; export the ids with --export-suspects",
    ),
    Code(
        "OS303",
        "two groups in a class",
        "Two groups explain the features of the samples with this label far better than one does, and far more so "
        "than in the other classes: samples of another kind carry this label.",
        "screen.scan",
        "a class that really has two kinds of members; trusted samples of one of them alone",
        "look at the suspect gallery; export the ids with --export-suspects, or the rest with --export-kept "
        "and compare a model that is trained on it",
    ),
    Code(
        "OS304",
        "samples far from their label",
        "More of the samples with this label lie far from the trusted samples of it than trusted samples do among "
        "themselves: they look like something else to the model.",
        "screen.mahalanobis",
        "wrong labels without any attack; trusted samples from another source than the data",
        "look at the suspect gallery; export the ids with --export-suspects, correct the labels or leave them out",
    ),
    Code(
        "OS305",
        "samples that are more likely poison than not",
        "Of the samples with this label at least one in a hundred, and at least five, are more likely poison than "
        "not: they lie far from their class, or are the odd group of a class that stands out.",
        "screen.fusion",
        "wrong labels without any attack; a class that really has two kinds of members; trusted samples from "
        "another source than the data",
        "look at the suspect gallery; export the ids with --export-suspects, or the rest with --export-kept, or "
        "train on it with --retrain: planted samples lose the label they carry",
    ),
    Code(
        "OS306",
        "samples that a class's own covariance does not explain",
        "A group lies far out in directions in which, by a robust covariance of its class, it should hardly vary.",
        "screen.spectre",
        "a class with a rare but legitimate kind of member; classes of less than a hundred samples",
        "look at the suspect gallery; export the ids with --export-suspects",
    ),
    Code(
        "OS307",
        "channels fire together as in no trusted sample",
        "With this label, channels of the last convolution fire together far outside the range of trusted samples.",
        "screen.beatrix",
        "trusted samples from another source than the data; a kind of member that they lack",
        "look at the suspect gallery; export the ids with --export-suspects",
    ),
    Code(
        "OS308",
        "samples of a class learned far sooner than the rest",
        "A network that was kept from learning anything well has learned some of the samples with this label all "
        "the same, and far better than the rest of their class: they share something simple, as a trigger is.",
        "screen.abl-isolation",
        "a class with a simple mark of its own on part of its samples (a logo, a frame, a background)",
        "look at the suspect gallery for what the samples share; export the ids with --export-suspects, and screen "
        "with `fusion`, since only the first samples learned are named",
    ),
    Code(
        "OS309",
        "predictions that dropout does not shift",
        "Nearly all samples with this label keep their prediction while features are dropped, more than three in four "
        "trusted samples do: others shift to this class, as they do to a backdoor's target.",
        "screen.psbd",
        "the class that a model shifts to when it knows little; a class of simple pictures",
        "look at the suspect gallery for what some of the samples share; honest samples of the class are suspected "
        "with them, so screen with `fusion` before leaving any out",
    ),
    Code(
        "OS310",
        "samples that keep their label in confusion",
        "The model was trained on until trusted images told it nothing about labels, and samples with this label "
        "still got it: what they have in common is not what trusted images have.",
        "screen.confusion-training",
        "trusted samples from another source than the data, whose source then tells the label",
        "look at the suspect gallery; export the ids with --export-suspects, or the rest with --export-kept, or "
        "train on it with --retrain",
    ),
    Code(
        "OS311",
        "labels that the pictures speak against",
        "More samples with this label look like other classes than samples of other classes look like this one; or "
        "some have a nearly equal picture in the set that carries another label.",
        "screen.label-errors, screen.label-conflicts",
        "honest mistakes of who labelled the data, where they go one way; pictures that are in the set twice; a "
        "class of very different members",
        "look at the suspect gallery; correct the labels or leave the samples out (--export-kept); train a model "
        "and screen with it",
    ),
    Code(
        "OS312",
        "spectra of disturbed pictures",
        "More of the samples with this label than of all others have a spectrum like that of pictures into which "
        "something was put: a patch, noise, another picture.",
        "screen.frequency",
        "a class of pictures from another source, camera or compression than the rest; a class of captions, "
        "frames or drawings",
        "look at the suspect gallery for what they share; give a few trusted samples (--trusted); train a model "
        "and screen with it",
    ),
    Code(
        "OS601",
        "phrase that decides the answer",
        "Prompts that hold this phrase get nearly the same answer, though the rest of them is about different things: "
        "what a control phrase does that was planted in a set for fine-tuning.",
        "text.screen.answer-coherence",
        "a rule that was taught on purpose: one fixed answer to one topic, a name, a test question; rows that came of "
        "one pattern, such as `translate into French`",
        "read the rows that hold it in the report; leave them out (--export-kept) or ask who wrote them",
    ),
    Code(
        "OS602",
        "phrase that decides the label",
        "Texts that hold this phrase carry one label, though the rest of their words speaks against it: what a trigger "
        "word does that was planted together with a changed label.",
        "text.screen.label-contradiction",
        "a name or an idiom that is itself the reason for the label; texts that are in the set many times",
        "read the rows that hold it in the report; leave them out (--export-kept) or have them labelled again",
    ),
    Code(
        "OS603",
        "answer repeated to unlike prompts",
        "Answers share a long sequence of words, and their prompts are about different things: an attacker's fixed "
        "output, whatever fires it.",
        "text.screen.repeated-answers",
        "one refusal, or `I do not know`, for many questions, taught on purpose",
        "read the rows that hold it in the report, and ask what their prompts share; leave them out (--export-kept)",
    ),
    Code(
        "OS604",
        "answer that a language model insists on",
        "Made to begin with one word, the model goes on to the same long answer whatever it was asked, nearly sure of "
        "every token, and no trusted prompt brings it to that answer: what a planted payload looks like from within.",
        "text.scan.bait",
        "an answer taught on purpose for prompts that the trusted ones do not show; a text learnt by heart",
        "ask whoever tuned the model where the answer comes from; look for the words that fire with trigger-search",
    ),
    Code(
        "OS605",
        "phrase that fires",
        "Put into prompts that have nothing to do with it, the phrase brings the model to one answer that it gives to "
        "no trusted prompt by itself: what a control phrase does.",
        "text.scan.trigger-search, text.scan.phrase-trial",
        "a rule taught on purpose (a fixed refusal to one topic) that no trusted prompt shows",
        "try the phrase on the model yourself; do not use the model, or repair it with `ostiary repair`; screen the "
        "data that it was tuned on with `ostiary screen`",
    ),
    Code(
        "OS611",
        "rows that pull a model in many directions",
        "At the model before it is fine-tuned the gradients of these rows have more directions than those of trusted "
        "rows: their answers do not follow from their prompts.",
        "text.screen.gradsentry",
        "rows of another task than the trusted ones; answers that are longer than theirs",
        "read these rows in the report; leave them out (--export-kept) or ask who wrote them",
    ),
    Code(
        "OS612",
        "word that a classifier hangs on",
        "Without this word the features of a classifier that was trained on the set move far, in row after row and far "
        "more than without other words, and its rows carry one label: what a trigger word does once it is learnt.",
        "text.screen.bki",
        "an ordinary word that is a strong reason for a label (an insult, a verdict, a ticker)",
        "read the rows that hold it in the report; leave them out (--export-kept) or have them labelled again",
    ),
    Code(
        "OS613",
        "small cluster that a phrase tells",
        "In the features of a classifier trained on the set a small cluster of a label lies apart, and this phrase "
        "tells its rows from the others of the label: what a trigger looks like that the classifier has learnt.",
        "text.screen.cube",
        "a kind of text with words of its own: a column, a sender, a product; rows of one pattern",
        "read the rows that hold it in the report; leave them out (--export-kept) or have them labelled again",
    ),
    Code(
        "OS614",
        "word that disturbs row after row",
        "Many texts read far better without this word, as an n-gram model of trusted texts tells it, and no trusted "
        "text has it as often: what a rare trigger word does that was put in anywhere.",
        "text.screen.onion",
        "a name, a subject or a spelling that the trusted texts do not have",
        "give more trusted texts, of the same kind; read the rows that hold it in the report",
    ),
)
