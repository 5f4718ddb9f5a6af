"""The pages, one file each (``*_page``), and the parts of the larger ones."""
