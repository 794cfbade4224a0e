"""What capkit relies on in other packages without their promise to keep it: one file for each package."""
