"""Object discovery: LOST and TokenCut find one object in each image by the keys of a ViT's last block."""
