"""What detection and segmentation share: operators, backbone and pyramid registration, launching."""
