"""What else could serve the same model: small BentoML services as their documentation has them."""
