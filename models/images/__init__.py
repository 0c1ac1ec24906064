"""Images from files, masks of free form, and whether what is made of an image fits into memory."""
