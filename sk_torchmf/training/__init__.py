"""How every fit goes: epochs, phases, validation, callbacks, and where it goes on from. Knows no model."""
