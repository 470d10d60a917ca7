"""The papers' remedies: Uout, re-estimated statistics, corrected initialisation, Monte-Carlo averaging."""
