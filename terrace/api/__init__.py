"""The public API's requests and answers, as both tiers and OpenAPI know them."""
