"""Reports: a result as one HTML page that needs nothing else."""
