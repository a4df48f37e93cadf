"""Guests on the Unicorn engine, which emulates their processor: for hosts without KVM."""
