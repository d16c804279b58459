"""Settings shared by all tests."""

from hypothesis import settings

# Times depend on the machine and on who else uses it; they are tested where they matter.
settings.register_profile("mids", deadline=None)
settings.load_profile("mids")
