"""What detection and segmentation share: mmcv's operators, the backbone as an OpenMMLab module, configs, training and testing."""
