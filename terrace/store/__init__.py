"""The only SQL of Terrace: one file per table family; the caller owns connection and transaction."""
