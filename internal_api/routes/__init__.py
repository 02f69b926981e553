"""Routes of the internal tier, one file per resource. Every one but health asks for a signature."""
