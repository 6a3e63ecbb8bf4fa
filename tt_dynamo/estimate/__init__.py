"""What programs are estimated to take on the device: formulas that a person can check, constants that were measured."""
