"""The images; docs/operate/images.md describes them."""
