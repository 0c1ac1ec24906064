"""Images from files, and whether what is made of them fits into memory."""
