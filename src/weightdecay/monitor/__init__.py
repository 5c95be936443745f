"""What the decay does during training: norms, angles, applied against intended, equilibrium."""
