"""What the command lines of both programs share: their parser, streams, signals, help and JSON."""
