"""Images with boxes, as COCO, Pascal VOC and YOLO have them."""
