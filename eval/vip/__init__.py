"""VIP: parts of persons that labels of a video's first frame carry through it, and mIoU."""
