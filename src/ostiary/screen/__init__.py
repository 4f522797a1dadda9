"""Data-set detectors: one file per method, one line here."""

METHODS = {
    "screen.abl-isolation": "ostiary.screen.abl_isolation:AblIsolation",
    "screen.activation-clustering": "ostiary.screen.activation_clustering:ActivationClustering",
    "screen.beatrix": "ostiary.screen.beatrix:Beatrix",
    "screen.confusion-training": "ostiary.screen.confusion_training:ConfusionTraining",
    "screen.frequency": "ostiary.screen.frequency:Frequency",
    "screen.fusion": "ostiary.screen.fusion:Fusion",
    "screen.label-conflicts": "ostiary.screen.label_conflicts:LabelConflicts",
    "screen.label-errors": "ostiary.screen.label_errors:LabelErrors",
    "screen.mahalanobis": "ostiary.screen.mahalanobis:Mahalanobis",
    "screen.psbd": "ostiary.screen.psbd:Psbd",
    "screen.scan": "ostiary.screen.scan:Scan",
    "screen.spectral-signatures": "ostiary.screen.spectral_signatures:SpectralSignatures",
    "screen.spectre": "ostiary.screen.spectre:Spectre",
    "text.screen.answer-coherence": "ostiary.screen.answer_coherence:AnswerCoherence",
    "text.screen.bki": "ostiary.screen.bki:Bki",
    "text.screen.gradsentry": "ostiary.screen.gradsentry:GradSentry",
    "text.screen.label-contradiction": "ostiary.screen.label_contradiction:LabelContradiction",
    "text.screen.repeated-answers": "ostiary.screen.repeated_answers:RepeatedAnswers",
}
