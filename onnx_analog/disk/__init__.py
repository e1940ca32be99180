"""Files of the user: read with bounds, written whole or not at all."""
