"""Ways of measuring what evidence is worth: one file each."""
