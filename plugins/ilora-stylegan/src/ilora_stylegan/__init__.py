"""StyleGAN2, StyleGAN3 and StyleGAN-XL as intrinsic generators: cards and hooks only."""
