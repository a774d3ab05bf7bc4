# What Omni uses of it; the package itself carries no types.
