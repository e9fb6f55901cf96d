"""Reading and writing of file formats (MRC, TIFF, STAR), without science."""
