"""Names, recipes and constructor calls as text, and the objects that are built from them."""
