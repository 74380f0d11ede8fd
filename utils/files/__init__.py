"""Files that are whole, whoever writes them and wherever they lie, and what they say they are."""
