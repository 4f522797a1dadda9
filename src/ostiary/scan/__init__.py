"""Model scanners: one file per method, one line here."""

METHODS = {
    "scan.mm-bd": "ostiary.scan.mm_bd:MMBD",
    "scan.neural-cleanse": "ostiary.scan.neural_cleanse:NeuralCleanse",
}
