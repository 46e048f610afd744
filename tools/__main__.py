"""`python -m tools ...` in a checkout, `python -m swiftsight_tools ...` where it is installed."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
