"""How good the predictions are: trained networks, measured Δ, and the page that compares them."""
