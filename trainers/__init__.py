"""Training programs: prepare text, pretrain, fuse, report."""
