"""Linear segmentation: a layer on a frozen backbone's patches, under three published protocols."""
