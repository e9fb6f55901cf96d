"""Reading and writing of file formats (MRC, TIFF, EER, DM, STAR), without science."""
