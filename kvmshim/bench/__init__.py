"""``kvmshim bench``: what an access costs, beside the floors of the same run."""
