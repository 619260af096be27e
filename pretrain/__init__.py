"""Self-supervised pretraining: images in, a checkpoint out."""
