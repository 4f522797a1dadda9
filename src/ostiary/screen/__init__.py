"""Data-set detectors: one file per method, one line here."""

METHODS = {
    "screen.activation-clustering": "ostiary.screen.activation_clustering:ActivationClustering",
    "screen.spectral-signatures": "ostiary.screen.spectral_signatures:SpectralSignatures",
}
