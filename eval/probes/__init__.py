"""What the tasks on frozen dense features share: data sets, feature maps, and their cache on disk."""
