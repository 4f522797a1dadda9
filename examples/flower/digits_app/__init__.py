"""A Flower app: digits of scikit-learn among clients, nothing to download."""
