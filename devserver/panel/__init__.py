"""The control panel: who runs what where, and what people want done about it."""
