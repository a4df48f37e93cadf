"""What runs a guest's processor: KVM, or an emulator where there is no KVM."""
