"""Picture files, COCO annotation files and colours: what the readers of detection and of segmentation data share."""
