"""A pair of 8259A interrupt controllers."""
