"""When to fuse for a budget: laws of loss against compute, from the curves of runs that exist."""
