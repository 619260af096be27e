"""Classification with frozen features: weighted k-NN and the linear probe."""
