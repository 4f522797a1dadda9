"""Model scanners: one file per method, one line here."""

METHODS = {
    "scan.neural-cleanse": "ostiary.scan.neural_cleanse:NeuralCleanse",
}
