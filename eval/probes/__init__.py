"""What the tasks on frozen features share: data sets, feature maps, vectors of whole images, and their cache on disk."""
