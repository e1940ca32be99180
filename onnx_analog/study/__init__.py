"""Many points: grids, stopping rules, a folder of results, and the workers that compute them."""
