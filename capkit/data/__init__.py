"""Records, readers, transforms and the data module: everything between files on disk and a `CaptionBatch`."""
