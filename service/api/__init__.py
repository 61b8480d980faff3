"""The HTTP contract: routes, wire schemas, tokens, and the edge around them."""
