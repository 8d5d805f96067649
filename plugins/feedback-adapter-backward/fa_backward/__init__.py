"""A generative backward pass through a network of convolutions and poolings."""
