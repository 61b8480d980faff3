"""Graphs of a UNet and a VAE decoder: what they compute, and how they are kept."""
