"""From a checked request to images: waiting room, encoder, denoising loop, decoder."""
