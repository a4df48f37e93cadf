"""The subcommands of ``kvmshim``, one module each: ``add_parser`` declares one, ``run`` does it."""
