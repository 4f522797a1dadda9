"""The words everybody shares: protocols, records, cards, runs, codes. Imports nothing else of ours."""
