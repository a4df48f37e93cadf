"""The 16550A UART."""
